"""What the data plane knows of keys, backends and models: pushed or read, kept in memory, never trusted for long.

It comes over the watch (``watch`` → ``changes`` → ``store``) and from Redis (``watcher``, ``keys``).

May import ``dataplane`` ports, values, errors and ``quota``, ``shared``, and, in ``control``, ``verifier``, ``watch``
and ``changes`` only, grpc and the stubs of ``neuronetz.state``.
"""
