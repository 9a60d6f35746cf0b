"""Shared by the tests of the dialects: every endpoint by name, and the least valid body of each."""

from __future__ import annotations

import json
from typing import Any

from dataplane.api import ollama, openai
from dataplane.api.dialect import Caps, Parsed

CAPS = Caps(max_num_predict=4096)
ENDPOINTS = {endpoint.name: endpoint for endpoint in (*ollama.ENDPOINTS, *openai.ENDPOINTS)}
MESSAGES = [{"role": "user", "content": "hi"}]
LEAST: dict[str, dict[str, Any]] = {
    "/api/chat": {"model": "llama3", "messages": MESSAGES},
    "/api/generate": {"model": "llama3", "prompt": "hi"},
    "/api/embed": {"model": "llama3", "input": "hi"},
    "/api/embeddings": {"model": "llama3", "prompt": "hi"},
    "/v1/chat/completions": {"model": "llama3", "messages": MESSAGES},
    "/v1/completions": {"model": "llama3", "prompt": "hi"},
    "/v1/embeddings": {"model": "llama3", "input": "hi"},
}


def parse(endpoint: str, caps: Caps = CAPS, **changes: Any) -> Parsed:
    """Parses the least valid body with some fields changed; raises what the endpoint raises."""
    return ENDPOINTS[endpoint].parse(json.dumps({**LEAST[endpoint], **changes}).encode(), caps)
