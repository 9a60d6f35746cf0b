"""The Ollama dialect: ``/api/chat``, ``/api/generate``, ``/api/embed`` and the legacy ``/api/embeddings``.

Requests are rebuilt from closed structs, and replies from the fields that we know; in between the gateway's own terms
happen to be Ollama's. May import ``dataplane.api.dialect``, ``rules``, ``strict_json`` and ``problems``.
"""

from __future__ import annotations

from dataplane.api.dialect import Endpoint
from dataplane.api.ollama import requests
from dataplane.values import Dialect

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(name="/api/chat", dialect=Dialect.OLLAMA, parse=requests.chat),
    Endpoint(name="/api/generate", dialect=Dialect.OLLAMA, parse=requests.generate),
    Endpoint(name="/api/embed", dialect=Dialect.OLLAMA, parse=requests.embed),
    Endpoint(name="/api/embeddings", dialect=Dialect.OLLAMA, parse=requests.embeddings),
)
