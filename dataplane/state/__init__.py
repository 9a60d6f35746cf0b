"""What the data plane knows of keys, backends and models: read from Redis, kept in memory, never trusted for long.

May import ``dataplane`` ports, values, errors and ``quota.link``, ``shared``, and, in ``verifier`` only, grpc and the
stubs of ``neuronetz.state``.
"""
