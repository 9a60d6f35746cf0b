"""The client's side: both dialects, what errors look like, and what is listed.

Each dialect is a package of pure functions, from the bytes of a body to an ``InferenceRequest`` and from upstream
records to the bytes of a reply; ``dialect`` says what they have in common. Reading bodies, routes and writing replies
build on them. May import ``dataplane.values``, ``native``, ``ports``, ``errors`` and ``shared``; the dialects do no I/O
and know no web framework.
"""
