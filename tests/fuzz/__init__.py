"""A differential fuzz of what stands between a client's body and Ollama.

A body of the corpus is mutated (``mutations``, ``bytewise``), parsed by the gateway's own endpoints and, unless they
refuse it, built into the request that its own upstream client would send (``sending``). Two readers that follow Go's
rules and share no code with the gateway then judge it (``judging``): one reads what is sent and may find nothing but
what may be sent, the other reads the client's body and must have understood it as the gateway did.

``python -m tests.fuzz`` runs as many bodies as asked for; the suite runs the corpus and some thousand more.
"""
