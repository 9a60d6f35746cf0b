"""Replies of ``/v1/chat/completions``: chunks as server-sent events, or one completion.

The first delta carries the role; thinking is ``reasoning``, in chunks of its own; a tool call is whole in one delta;
then a chunk with the reason, on request one with the usage, and ``[DONE]``. Source of the shapes: OpenAI's API
reference and ollama ``openai/openai.go``, August 2026; unlike there, ids are unique.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import msgspec

from dataplane.api import answers, problems
from dataplane.api.dialect import EVENT_STREAM, JSON
from dataplane.api.openai.usage import SYSTEM_FINGERPRINT, Usage, usage_of
from dataplane.errors import GatewayError
from dataplane.native import UNSET, EmbedReply, Record, ToolCall, Unset
from dataplane.values import Dialect

DONE = b"data: [DONE]\n\n"

_ENCODER = msgspec.json.Encoder()
_encode = _ENCODER.encode
_CALL_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


class Alternative(msgspec.Struct, frozen=True):
    """A token that might have been, with the bytes of its text."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(msgspec.Struct, frozen=True):
    """A token that was produced."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[Alternative]


class Logprobs(msgspec.Struct, frozen=True):
    """``logprobs`` of a choice."""

    content: list[TokenLogprob]


class Function(msgspec.Struct, frozen=True):
    """The function of a tool call; arguments are a text that holds JSON."""

    name: str
    arguments: str


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A tool call; the index is written in deltas only."""

    index: int | Unset = UNSET
    id: str
    type: str = "function"
    function: Function


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """The message of a completion."""

    role: str
    content: str | None
    reasoning: str | Unset = UNSET
    tool_calls: list[Call] | Unset = UNSET


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """The one choice that there is."""

    index: int
    message: Message
    logprobs: Logprobs | None
    finish_reason: str


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """A whole reply."""

    id: str
    object: str = "chat.completion"
    created: int
    model: str
    system_fingerprint: str = SYSTEM_FINGERPRINT
    choices: list[Choice]
    usage: Usage


class ChunkHead(msgspec.Struct, frozen=True, kw_only=True):
    """What every chunk of a stream begins with."""

    id: str
    object: str = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: str = SYSTEM_FINGERPRINT


class ChatRendering:
    """Implements ``dialect.Rendering``; remembers whether the role was sent and how many tools were called."""

    __slots__ = ("_calls", "_created_s", "_delta", "_head", "_model", "_request_id", "_started", "_usage", "stream")

    def __init__(self, model: str, stream: bool, usage: bool, request_id: str, created_s: int) -> None:  # noqa: FBT001
        self._model = model
        self.stream = stream
        self._usage = usage
        self._request_id = request_id
        self._created_s = created_s
        head = _encode(ChunkHead(id=self._id(), created=created_s, model=model))
        self._head = b"data: " + head[:-1] + b',"choices":['
        self._delta = self._head + b'{"index":0,"delta":'
        self._started = False
        self._calls = 0

    @property
    def content_type(self) -> bytes:
        """See ``Rendering``."""
        return EVENT_STREAM if self.stream else JSON

    def batch(self, records: Sequence[Record]) -> bytes:
        """See ``Rendering``."""
        events: list[bytes] = []
        for record in records:
            self._say(record, events)
            if record.done:
                self._finish(record, events)
        return b"".join(events)

    def whole(self, reply: Sequence[Record] | EmbedReply) -> bytes:
        """See ``Rendering``. Content is null beside tool calls when there is none, as OpenAI has it."""
        records = answers.records_of(reply)
        content = "".join(map(answers.content, records))
        calls = [self._call(call, index=UNSET) for call in answers.tool_calls_of(records)]
        message = Message(
            role="assistant",
            content=None if calls and not content else content,
            reasoning="".join(map(answers.thinking, records)) or UNSET,
            tool_calls=calls or UNSET,
        )
        logprobs = answers.logprobs_of(records)
        choice = Choice(
            index=0,
            message=message,
            logprobs=_logprobs(logprobs) if logprobs else None,
            finish_reason=self._reason(records[-1]),
        )
        completion = Completion(
            id=self._id(), created=self._created_s, model=self._model, choices=[choice], usage=usage_of(records[-1])
        )
        return _encode(completion)

    def broken(self, error: GatewayError) -> bytes:
        """See ``Rendering``."""
        return problems.broken(error, Dialect.OPENAI, self._request_id)

    def _say(self, record: Record, events: list[bytes]) -> None:
        content, thinking, calls = answers.content(record), answers.thinking(record), answers.tool_calls(record)
        logprobs = b""
        if record.logprobs is not UNSET and (values := answers.logprobs(record.logprobs)):
            logprobs = b',"logprobs":' + _encode(_logprobs(values))
        if thinking:
            alone = not content and not calls
            events.append(self._chunk(b'"content":"","reasoning":' + _encode(thinking), logprobs if alone else b""))
        if calls:
            first = self._calls
            written = [self._call(call, index=first + offset) for offset, call in enumerate(calls)]
            delta = b'"content":' + _encode(content) + b',"tool_calls":' + _encode(written)
            events.append(self._chunk(delta, logprobs))
        elif content or (logprobs and not thinking) or not self._started:
            events.append(self._chunk(b'"content":' + _encode(content), logprobs))

    def _finish(self, record: Record, events: list[bytes]) -> None:
        reason = _encode(self._reason(record))
        events.append(self._delta + b'{},"finish_reason":' + reason + b"}]}\n\n")
        if self._usage:
            events.append(self._head + b'],"usage":' + _encode(usage_of(record)) + b"}\n\n")
        events.append(DONE)

    def _chunk(self, delta: bytes, logprobs: bytes) -> bytes:
        if self._started:
            return self._delta + b"{" + delta + b"}" + logprobs + b',"finish_reason":null}]}\n\n'
        self._started = True
        return self._delta + b'{"role":"assistant",' + delta + b"}" + logprobs + b',"finish_reason":null}]}\n\n'

    def _call(self, call: ToolCall, *, index: int | Unset) -> Call:
        given = call.id if call.id is not UNSET and _CALL_ID.fullmatch(call.id) else None
        number = self._calls
        self._calls += 1
        return Call(
            index=index,
            id=given or _call_id(self._request_id, number),
            function=Function(call.function.name, bytes(call.function.arguments).decode()),
        )

    def _reason(self, record: Record) -> str:
        if record.done_reason == "length":
            return "length"
        return "tool_calls" if self._calls else "stop"

    def _id(self) -> str:
        return f"chatcmpl-{self._request_id}"

    def __repr__(self) -> str:
        return f"ChatRendering(stream={self.stream}, started={self._started}, calls={self._calls})"


def _call_id(request_id: str, number: int) -> str:
    """An id for a call that has none, unique among requests and within the 40 characters that OpenAI allows."""
    digest = hashlib.blake2s(f"{request_id}/{number}".encode(), digest_size=12).hexdigest()
    return f"call_{digest}"


def _logprobs(values: Sequence[answers.Logprob]) -> Logprobs:
    return Logprobs(
        [
            TokenLogprob(
                value.token,
                value.logprob,
                _bytes(value),
                [Alternative(other.token, other.logprob, _bytes(other)) for other in value.top_logprobs or ()],
            )
            for value in values
        ]
    )


def _bytes(value: answers.TokenLogprob) -> list[int]:
    return list(value.token.encode()) if value.bytes is UNSET else value.bytes
