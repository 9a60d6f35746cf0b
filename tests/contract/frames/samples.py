"""Records as Ollama sends them (lines of its API documentation), decoded as the relay decodes them."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from dataplane.native import EmbedReply, Record

CREATED = "2026-08-04T19:22:45.499127Z"
FINAL: dict[str, Any] = {
    "done": True,
    "done_reason": "stop",
    "total_duration": 4883583458,
    "load_duration": 1334875,
    "prompt_eval_count": 26,
    "prompt_eval_duration": 342546000,
    "eval_count": 282,
    "eval_duration": 4535599000,
}
# Fields that must never come through, and counts that are none.
HOSTILE: dict[str, Any] = {
    "model": "canary",
    "remote_model": "canary",
    "remote_host": "https://canary.example",
    "context": [1, 2, 3],
    "_debug_info": {"rendered_template": "canary"},
}
LOGPROBS = [
    {"token": "Hé", "logprob": -0.25, "bytes": [72, 195, 169], "top_logprobs": [{"token": "He", "logprob": -1.5}]},
    {"token": "!", "logprob": -0.5},
]


def record(**fields: Any) -> Record:
    """A record with these fields."""
    return msgspec.json.decode(json.dumps({"created_at": CREATED, "done": False, **fields}), type=Record)


def chat(content: str = "", *, final: bool = False, **message: Any) -> Record:
    """A record of ``/api/chat``."""
    said = {"role": "assistant", "content": content, **message}
    logprobs = said.pop("logprobs", None)
    return record(message=said, **({"logprobs": logprobs} if logprobs else {}), **(FINAL if final else {}), **HOSTILE)


def generated(response: str = "", *, final: bool = False, **fields: Any) -> Record:
    """A record of ``/api/generate``."""
    return record(response=response, **fields, **(FINAL if final else {}), **HOSTILE)


def embedded(*vectors: list[float]) -> EmbedReply:
    """A reply of ``/api/embed``."""
    return EmbedReply(embeddings=list(vectors), total_duration=14143917, load_duration=1019500, prompt_eval_count=8)


def tool_call(name: str = "weather", arguments: Any = None, **fields: Any) -> dict[str, Any]:
    """A tool call of a record."""
    return {"function": {"name": name, "arguments": {"city": "Zürich"} if arguments is None else arguments}, **fields}
