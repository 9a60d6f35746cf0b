"""The five stages of a request, each on its own: authenticate, admit, route, relay, settle.

A stage decides in terms of ports and values; which of them comes when is written in ``dataplane.pipeline``. May import
``dataplane`` ports, values, native, interrupt and errors, ``shared`` and msgspec; never another stage, never a library
that talks to the network.
"""
