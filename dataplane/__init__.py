"""The data plane: the hot path, and nothing but the hot path.

Reads top-down: ``__main__ > app > api > pipeline > stages > state | quota | upstream > ports > values > errors``.
May import ``shared`` and, in ``dataplane.state`` only, the stubs of ``neuronetz.state``. It can reach neither Postgres
nor Argon2: they are not installed in its image.
"""
