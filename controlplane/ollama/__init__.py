"""What the control plane asks of an Ollama server: which models it has, and what it knows about one.

Requests never pass here: this is the cold path. May import ``shared``, ``controlplane.core`` and httpx.
"""
