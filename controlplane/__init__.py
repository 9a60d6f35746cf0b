"""The control plane: owns Postgres, discovers models, publishes state to Redis, answers operators over gRPC.

It never imports the data plane, nor the libraries of one (Litestar, granian). Inside it reads top-down:
``__main__ > app > rpc | tasks > watch > publish | store | ollama > core > errors``; ``cli`` is a client of its own.
"""
