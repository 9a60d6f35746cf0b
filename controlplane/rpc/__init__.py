"""The gRPC services: one module per service, and in front of them who may call what.

The stubs of ``neuronetz`` are imported here and in ``controlplane.cli`` only. May import ``controlplane.core``,
``controlplane.store``, ``controlplane.publish``, ``controlplane.ollama``, ``controlplane.hashing``,
``controlplane.errors`` and ``shared``.
"""
