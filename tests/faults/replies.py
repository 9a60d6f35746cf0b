"""What a client reads, byte for byte, when a backend has said certain words: written down here from the dialects' own
documents, not with the gateway's code.

Sources: ollama `api/types.go` (order of the fields, what is left out when empty) and OpenAI's API reference.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from deploy.mock_ollama.frames import created_at
from deploy.mock_ollama.tokens import Draw
from tests.faults.expectations import OUTPUT_TOKENS, PROMPT_TEXT, Error, Records

Dialect = Literal["ollama", "openai"]

PATHS: dict[Dialect, str] = {"ollama": "/api/chat", "openai": "/v1/chat/completions"}
_CONTENT_TYPES: dict[tuple[Dialect, bool], str] = {
    ("ollama", True): "application/x-ndjson",
    ("ollama", False): "application/json; charset=utf-8",
    ("openai", True): "text/event-stream",
    ("openai", False): "application/json",
}
_SEED = 0
# How the mock's durations come about, in nanoseconds; they are what it says, not what it takes.
_OVERHEAD_NS, _LOAD_NS, _PROMPT_TOKEN_NS, _TOKEN_NS = 1_234_567, 20_000_000, 250_000, 8_000_000


def records_of(model: str) -> Records:
    """What the mock's model of this exact spelling says to the one prompt of the matrix."""
    draw = Draw(f"{model}\0{_SEED}\0{PROMPT_TEXT}")
    # Its thinking is drawn first; it has none.
    draw.words(0)
    words = draw.words(OUTPUT_TOKENS)
    return [(created_at(index), word) for index, word in enumerate(words)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """The counts at the end of a reply; None where nothing is said."""

    prompt: int | None
    output: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What bytes depend on. `created_s` and `request_id` are the gateway's choice and taken from its reply."""

    dialect: Dialect
    stream: bool
    model: str
    request_id: str
    created_s: int

    @property
    def content_type(self) -> str:
        """Of the reply, errors before the first byte excepted."""
        return _CONTENT_TYPES[self.dialect, self.stream]

    @property
    def error_content_type(self) -> str:
        """Of an error in place of a reply."""
        return _CONTENT_TYPES[self.dialect, False]

    def records(self, records: Records) -> bytes:
        """The part of a stream that carries these records."""
        if self.dialect == "ollama":
            return b"".join(self._frame(time, word) for time, word in records)
        deltas = [{"content": word} for _, word in records]
        deltas[:1] = [{"role": "assistant", **delta} for delta in deltas[:1]]
        return b"".join(self._chunk({"index": 0, "delta": delta, "finish_reason": None}) for delta in deltas)

    def completed(self, records: Records, told: Told, durations: Told) -> bytes:
        """A whole reply, or a whole stream."""
        return (
            self._completed_ollama(records, told, durations)
            if self.dialect == "ollama"
            else self._completed(records, told)
        )

    def error(self, error: Error) -> bytes:
        """The body of an error in place of a reply."""
        return _json(self._error(error))

    def event(self, error: Error) -> bytes:
        """The terminal event of a stream that broke off."""
        if self.dialect == "ollama":
            return _json({**self._error(error), "request_id": self.request_id}) + b"\n"
        return b"data: " + _json(self._error(error)) + b"\n\n"

    def _error(self, error: Error) -> dict[str, Any]:
        status, code, message = error.value
        if self.dialect == "ollama":
            return {"error": message, "code": code}
        kind = {400: "invalid_request_error", 403: "permission_error"}.get(status, "api_error")
        return {"error": {"message": message, "type": kind, "param": None, "code": code}}

    def _frame(self, time: str, word: str, **final: Any) -> bytes:
        message = {"role": "assistant", "content": word}
        record = {"model": self.model, "created_at": time, "message": message, "done": bool(final), **final}
        return _json(record) + b"\n"

    def _completed_ollama(self, records: Records, told: Told, durations: Told) -> bytes:
        times = {"prompt": (durations.prompt or 0) * _PROMPT_TOKEN_NS, "output": (durations.output or 0) * _TOKEN_NS}
        metrics = {
            "done_reason": "stop",
            "total_duration": _OVERHEAD_NS + _LOAD_NS + times["prompt"] + times["output"],
            "load_duration": _LOAD_NS,
            "prompt_eval_count": told.prompt,
            "prompt_eval_duration": times["prompt"],
            "eval_count": told.output,
            "eval_duration": times["output"],
        }
        final = {name: value for name, value in metrics.items() if value is not None}
        at_end = created_at(len(records))
        if self.stream:
            return self.records(records) + self._frame(at_end, "", **final)
        return self._frame(at_end, "".join(word for _, word in records), **final)[:-1]

    def _completed(self, records: Records, told: Told) -> bytes:
        prompt, output = told.prompt or 0, told.output or 0
        usage = {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}
        if self.stream:
            end = self._chunk({"index": 0, "delta": {}, "finish_reason": "stop"})
            return self.records(records) + end + self._chunk(usage=usage) + b"data: [DONE]\n\n"
        message = {"role": "assistant", "content": "".join(word for _, word in records)}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        return _json({**self._head("chat.completion"), "choices": [choice], "usage": usage})

    def _chunk(self, *choices: dict[str, Any], **more: Any) -> bytes:
        return b"data: " + _json({**self._head("chat.completion.chunk"), "choices": choices, **more}) + b"\n\n"

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{self.request_id}",
            "object": kind,
            "created": self.created_s,
            "model": self.model,
            "system_fingerprint": "fp_ollama",
        }


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
