"""The OpenAI dialect: ``/v1/chat/completions``, ``/v1/completions`` and ``/v1/embeddings``.

Requests are translated to Ollama's native API and its records back, instead of using Ollama's own ``/v1`` layer: that
one loses errors in the middle of a stream, ignores ``max_completion_tokens`` and hides usage. ``fields`` says what is
read, ``requests`` translates there, ``chat``, ``completions`` and ``embeddings`` translate back. May import
``dataplane.api.dialect``, ``rules``, ``answers``, ``strict_json`` and ``problems``.
"""

from __future__ import annotations

from dataplane.api.dialect import Endpoint
from dataplane.api.openai import requests
from dataplane.values import Dialect

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(name="/v1/chat/completions", dialect=Dialect.OPENAI, parse=requests.chat),
    Endpoint(name="/v1/completions", dialect=Dialect.OPENAI, parse=requests.completions),
    Endpoint(name="/v1/embeddings", dialect=Dialect.OPENAI, parse=requests.embeddings),
)
