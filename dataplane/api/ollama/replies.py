"""Replies of the Ollama dialect: one JSON object per line, or one for the whole reply.

The order of fields and what is left out when empty are Ollama's (``api/types.go``, August 2026). ``context``, anything
remote and debugging output are never written; a reply names the model as its client did.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from dataplane.api import answers, problems
from dataplane.api.dialect import JSON_UTF8, NDJSON
from dataplane.errors import GatewayError
from dataplane.native import UNSET, EmbedReply, Record, ToolCall, Unset
from dataplane.values import Dialect

_REASONS = frozenset({"stop", "length", "load", "unload"})
_ENCODER = msgspec.json.Encoder()


class Said(NamedTuple):
    """What a record, or a whole reply, says beside its metrics."""

    content: str
    thinking: str
    tool_calls: list[ToolCall] | Unset
    logprobs: list[answers.Logprob] | Unset


class MessageFrame(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The message of a chat frame; content is written even when it is empty."""

    role: str
    content: str
    thinking: str = ""
    tool_calls: list[ToolCall] | Unset = UNSET


class ChatFrame(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One line of ``/api/chat``."""

    model: str
    created_at: str
    message: MessageFrame
    done: bool
    done_reason: str | Unset = UNSET
    logprobs: list[answers.Logprob] | Unset = UNSET
    total_duration: int | Unset = UNSET
    load_duration: int | Unset = UNSET
    prompt_eval_count: int | Unset = UNSET
    prompt_eval_duration: int | Unset = UNSET
    eval_count: int | Unset = UNSET
    eval_duration: int | Unset = UNSET


class GenerateFrame(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One line of ``/api/generate``."""

    model: str
    created_at: str
    response: str
    # Required so that ``done`` keeps its place behind it; left out by hand when empty.
    thinking: str | Unset
    done: bool
    done_reason: str | Unset = UNSET
    tool_calls: list[ToolCall] | Unset = UNSET
    logprobs: list[answers.Logprob] | Unset = UNSET
    total_duration: int | Unset = UNSET
    load_duration: int | Unset = UNSET
    prompt_eval_count: int | Unset = UNSET
    prompt_eval_duration: int | Unset = UNSET
    eval_count: int | Unset = UNSET
    eval_duration: int | Unset = UNSET


class EmbedFrame(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The answer of ``/api/embed``."""

    model: str
    embeddings: list[list[float]]
    total_duration: int | Unset = UNSET
    load_duration: int | Unset = UNSET
    prompt_eval_count: int | Unset = UNSET


Build = Callable[[str, str, Said, Record], ChatFrame | GenerateFrame]


class FrameRendering:
    """A reply of ``/api/chat`` or ``/api/generate``, which differ in their frames. Implements ``dialect.Rendering``."""

    __slots__ = ("_build", "_created_at", "_head", "_model", "_request_id", "stream")

    def __init__(self, build: Build, model: str, stream: bool, request_id: str, created_s: int) -> None:  # noqa: FBT001
        self._build = build
        self._model = model
        self.stream = stream
        self._request_id = request_id
        self._created_at = _moment(created_s)
        self._head = b'{"model":%b,"created_at":"' % _ENCODER.encode(model) if stream else b""

    @property
    def content_type(self) -> bytes:
        """See ``Rendering``."""
        return NDJSON if self.stream else JSON_UTF8

    def batch(self, records: Sequence[Record]) -> bytes:
        """See ``Rendering``."""
        return b"".join([self._line(record) for record in records])

    def whole(self, reply: Sequence[Record] | EmbedReply) -> bytes:
        """See ``Rendering``. Texts are joined, tool calls and log probabilities collected; metrics are the last's."""
        records = answers.records_of(reply)
        if len(records) == 1:
            return _ENCODER.encode(self._frame(records[0], _said(records[0])))
        said = Said(
            "".join([answers.content(record) for record in records]),
            "".join([answers.thinking(record) for record in records]),
            answers.tool_calls_of(records) or UNSET,
            answers.logprobs_of(records) or UNSET,
        )
        return _ENCODER.encode(self._frame(records[-1], said))

    def broken(self, error: GatewayError) -> bytes:
        """See ``Rendering``."""
        return problems.broken(error, Dialect.OLLAMA, self._request_id)

    def _line(self, record: Record) -> bytes:
        """One line. What most records are, a piece of text and nothing else, is put between constant bytes."""
        message = record.message
        if message is UNSET:
            text, more = record.response, record.thinking or record.tool_calls
        else:
            text, more = message.content, message.thinking or message.tool_calls
        if more or record.done or record.logprobs is not UNSET or not answers.is_timestamp(record.created_at):
            return _ENCODER.encode(self._frame(record, _said(record))) + b"\n"
        before, after = _PLAIN[self._build]
        return b"%b%b%b%b%b" % (self._head, record.created_at.encode(), before, _ENCODER.encode(text or ""), after)

    def _frame(self, record: Record, said: Said) -> ChatFrame | GenerateFrame:
        created_at = record.created_at if answers.is_timestamp(record.created_at) else self._created_at
        return self._build(self._model, created_at, said, record)

    def __repr__(self) -> str:
        return f"FrameRendering(stream={self.stream})"


# Requests of one second share it.
@functools.lru_cache(maxsize=8)
def _moment(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def chat_frame(model: str, created_at: str, said: Said, record: Record) -> ChatFrame:
    """A frame of ``/api/chat``."""
    message = MessageFrame("assistant", said.content, said.thinking, said.tool_calls)
    if not record.done:
        return ChatFrame(model, created_at, message, False, UNSET, said.logprobs)  # noqa: FBT003
    return ChatFrame(model, created_at, message, True, _reason(record), said.logprobs, *_metrics(record))  # noqa: FBT003


def generate_frame(model: str, created_at: str, said: Said, record: Record) -> GenerateFrame:
    """A frame of ``/api/generate``."""
    return GenerateFrame(
        model,
        created_at,
        said.content,
        said.thinking or UNSET,
        record.done,
        _reason(record),
        said.tool_calls,
        said.logprobs,
        *(_metrics(record) if record.done else ()),
    )


# What stands around the text of a frame that says nothing else, as the structs above would be written.
_PLAIN: dict[Build, tuple[bytes, bytes]] = {
    chat_frame: (b'","message":{"role":"assistant","content":', b'},"done":false}\n'),
    generate_frame: (b'","response":', b',"done":false}\n'),
}


class EmbedRendering:
    """A reply of ``/api/embed``, or of ``/api/embeddings`` when ``legacy``. Implements ``dialect.Rendering``."""

    __slots__ = ("_legacy", "_model", "_request_id")

    stream = False
    content_type = JSON_UTF8

    def __init__(self, model: str, legacy: bool, request_id: str, _created_s: int) -> None:  # noqa: FBT001
        self._model = model
        self._legacy = legacy
        self._request_id = request_id

    def batch(self, records: Sequence[Record]) -> bytes:
        """Embeddings do not stream: nothing is ever written."""
        raise TypeError(f"embeddings do not stream, not even {len(records)} records")

    def whole(self, reply: Sequence[Record] | EmbedReply) -> bytes:
        """See ``Rendering``."""
        embedded = answers.embedded(reply)
        if self._legacy:
            return _ENCODER.encode({"embedding": embedded.embeddings[0] if embedded.embeddings else []})
        return _ENCODER.encode(
            EmbedFrame(
                self._model,
                embedded.embeddings,
                answers.number(embedded.total_duration),
                answers.number(embedded.load_duration),
                answers.number(embedded.prompt_eval_count),
            )
        )

    def broken(self, error: GatewayError) -> bytes:
        """See ``Rendering``."""
        return problems.broken(error, Dialect.OLLAMA, self._request_id)

    def __repr__(self) -> str:
        return f"EmbedRendering(legacy={self._legacy})"


def _said(record: Record) -> Said:
    logprobs = UNSET if record.logprobs is UNSET else answers.logprobs(record.logprobs) or UNSET
    return Said(answers.content(record), answers.thinking(record), answers.tool_calls(record), logprobs)


def _reason(record: Record) -> str | Unset:
    return record.done_reason if record.done_reason in _REASONS else UNSET


def _metrics(record: Record) -> tuple[int | Unset, ...]:
    number = answers.number
    return (
        number(record.total_duration),
        number(record.load_duration),
        number(record.prompt_eval_count),
        number(record.prompt_eval_duration),
        number(record.eval_count),
        number(record.eval_duration),
    )
