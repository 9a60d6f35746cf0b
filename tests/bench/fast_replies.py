"""The replies of the fast mock, written once: what each of its models says, in both dialects, whole and as a stream.

``reply`` answers with about 1 KB; ``block`` with 64 records in one write; ``burst`` with as many, a write each, one
right after the other; ``paced`` with one every 20 ms, as a model does; ``open`` sends one record and nothing more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

RECORDS = 64
PACE_S = 0.02
REPLY, BLOCK, BURST, PACED, OPEN = "bench-reply", "bench-block", "bench-burst", "bench-paced", "bench-open"
MODELS = (REPLY, BLOCK, BURST, PACED, OPEN)

_MOMENT = "2026-11-21T10:00:00.123456789Z"
_WORD = " word"
_COUNTS = {
    "total_duration": 1_234_567_890,
    "load_duration": 12_345_678,
    "prompt_eval_count": 120,
    "prompt_eval_duration": 123_456_789,
    "eval_count": RECORDS,
    "eval_duration": 1_034_567_890,
}
_TEXT = "".join(f" word{number:03}" for number in range(80))


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What is written for one request: the first write, and those that follow, each ``pace_s`` after the last."""

    first: bytes
    further: tuple[bytes, ...] = ()
    pace_s: float = 0.0


def scripts() -> Mapping[tuple[str, str, bool], Script]:
    """Everything that can be asked, by path, model and whether it is streamed."""
    made = {}
    for path, is_native in (("/api/chat", True), ("/v1/chat/completions", False)):
        for model in MODELS:
            parts = 1 if model == REPLY else RECORDS - 1
            text = _TEXT if model == REPLY else _WORD * parts
            made[path, model, False] = Script(first=_whole(_native(model, text) if is_native else _openai(model, text)))
            made[path, model, True] = _stream(model, _TEXT if model == REPLY else _WORD, parts, is_native=is_native)
    return made


def tags(extra: int = 0) -> bytes:
    """The answer to ``/api/tags``; ``extra`` models that nobody asks stand beside the four."""
    names = [*MODELS, *(f"bench-extra-{number}" for number in range(extra))]
    models = [
        {"name": f"{name}:latest", "model": f"{name}:latest", "modified_at": _MOMENT, "size": 1, "digest": "ab" * 32}
        for name in names
    ]
    return _whole({"models": models})


def show() -> bytes:
    """The answer to ``/api/show``."""
    info = {"general.architecture": "bench", "bench.context_length": 131_072, "bench.embedding_length": 4096}
    return _whole({"capabilities": ["completion"], "model_info": info, "details": {}, "template": "", "system": ""})


def version() -> bytes:
    """The answer to ``/api/version``."""
    return _whole({"version": "0.13.0"})


def _stream(model: str, word: str, parts: int, *, is_native: bool) -> Script:
    if is_native:
        records = [_line(_native_part(model, word))] * parts + [_line(_native(model, ""))]
    else:
        records = [_event(_openai_part(model, word))] * parts + [_event(_openai_part(model, None)), b"data: [DONE]\n\n"]
    kind = b"application/x-ndjson" if is_native else b"text/event-stream"
    # nginx buffers no reply that says this, and all others.
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nX-Accel-Buffering: no\r\nTransfer-Encoding: chunked\r\n\r\n" % kind
    chunks = [b"%x\r\n%b\r\n" % (len(record), record) for record in records]
    if model == OPEN:
        return Script(first=head + chunks[0])
    end = b"0\r\n\r\n"
    if model in (BURST, PACED):
        # The last events of an OpenAI stream come together.
        further = (*chunks[1 : RECORDS - 1], b"".join(chunks[RECORDS - 1 :]) + end)
        return Script(first=head + chunks[0], further=further, pace_s=PACE_S if model == PACED else 0.0)
    return Script(first=head + b"".join(chunks) + end)


def _native_part(model: str, text: str) -> dict[str, object]:
    message = {"role": "assistant", "content": text}
    return {"model": f"{model}:latest", "created_at": _MOMENT, "message": message, "done": False}


def _native(model: str, text: str) -> dict[str, object]:
    return _native_part(model, text) | {"done": True, "done_reason": "stop"} | _COUNTS


def _openai(model: str, text: str) -> dict[str, object]:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 120, "completion_tokens": RECORDS, "total_tokens": 120 + RECORDS}
    named = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1_795_255_200, "model": f"{model}:latest"}
    return named | {"choices": [choice], "usage": usage}


def _openai_part(model: str, text: str | None) -> dict[str, object]:
    delta = {} if text is None else {"role": "assistant", "content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": "stop" if text is None else None}
    named = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_795_255_200}
    return named | {"model": f"{model}:latest", "choices": [choice]}


def _line(record: object) -> bytes:
    return _json(record) + b"\n"


def _event(record: object) -> bytes:
    return b"data: " + _json(record) + b"\n\n"


def _whole(reply: object) -> bytes:
    body = _json(reply)
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
