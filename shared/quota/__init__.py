"""The functions by which data planes decide in Redis: the Lua files here, and the library that they make (``library``).

A control plane loads the library, a data plane only calls it: what has no more than a data plane's password can run no
line of Lua that no control plane has loaded. What calls look like, and what is made of the replies, is the data plane's
(``dataplane.quota``).

May import ``shared.layout``, nothing else of ours.
"""
