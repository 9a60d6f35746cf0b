"""Rules about tenants, keys, limits, backends and roles: pure functions and frozen values, no I/O.

May import ``shared`` and ``controlplane.errors``; nothing that reaches a network, a database or gRPC.
"""
