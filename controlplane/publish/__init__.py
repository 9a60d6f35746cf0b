"""Redis as the control plane writes it: records, versions, fence, backends, and the usage streams that it drains.

The data planes' functions are kept loaded from here. Multi-key writes are Lua scripts beside their adapter; errors of
the client library become ``RedisUnavailableError`` here. May import ``controlplane.core``, ``controlplane.store``,
``controlplane.errors`` and ``shared``.
"""
