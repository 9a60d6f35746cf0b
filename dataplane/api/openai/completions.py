"""Replies of ``/v1/completions``: chunks as server-sent events, or one completion.

Thinking has no place in this legacy shape and is left out. Source of the shapes: OpenAI's API reference.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from dataplane.api import answers, problems
from dataplane.api.dialect import EVENT_STREAM, JSON
from dataplane.api.openai.chat import DONE
from dataplane.api.openai.usage import SYSTEM_FINGERPRINT, Usage, usage_of
from dataplane.errors import GatewayError
from dataplane.native import UNSET, EmbedReply, Record, Unset
from dataplane.values import Dialect


class Logprobs(msgspec.Struct, frozen=True):
    """Parallel lists over the tokens; offsets count characters of the text."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class Choice(msgspec.Struct, frozen=True):
    """The one choice that there is; the reason is null until the last chunk."""

    text: str
    index: int
    logprobs: Logprobs | None
    finish_reason: str | None


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """A whole reply, or a chunk of one."""

    id: str
    object: str = "text_completion"
    created: int
    model: str
    system_fingerprint: str = SYSTEM_FINGERPRINT
    choices: list[Choice]
    usage: Usage | Unset = UNSET


_encode = msgspec.json.Encoder().encode


class CompletionRendering:
    """Implements ``dialect.Rendering``; remembers how long the text is so far."""

    __slots__ = ("_created_s", "_model", "_offset", "_request_id", "_usage", "stream")

    def __init__(self, model: str, stream: bool, usage: bool, request_id: str, created_s: int) -> None:  # noqa: FBT001
        self._model = model
        self.stream = stream
        self._usage = usage
        self._request_id = request_id
        self._created_s = created_s
        self._offset = 0

    @property
    def content_type(self) -> bytes:
        """See ``Rendering``."""
        return EVENT_STREAM if self.stream else JSON

    def batch(self, records: Sequence[Record]) -> bytes:
        """See ``Rendering``."""
        events: list[bytes] = []
        for record in records:
            text, logprobs = answers.content(record), self._logprobs([record])
            if text or logprobs:
                events.append(self._event(Choice(text, 0, logprobs, None)))
            self._offset += len(text)
            if record.done:
                events.append(self._event(Choice("", 0, None, _reason(record))))
                if self._usage:
                    events.append(self._event(None, usage_of(record)))
                events.append(DONE)
        return b"".join(events)

    def whole(self, reply: Sequence[Record] | EmbedReply) -> bytes:
        """See ``Rendering``."""
        records = answers.records_of(reply)
        text = "".join(map(answers.content, records))
        choice = Choice(text, 0, self._logprobs(records), _reason(records[-1]))
        return _encode(self._completion([choice], usage_of(records[-1])))

    def broken(self, error: GatewayError) -> bytes:
        """See ``Rendering``."""
        return problems.broken(error, Dialect.OPENAI, self._request_id)

    def _event(self, choice: Choice | None, usage: Usage | Unset = UNSET) -> bytes:
        return b"data: " + _encode(self._completion([] if choice is None else [choice], usage)) + b"\n\n"

    def _completion(self, choices: list[Choice], usage: Usage | Unset) -> Completion:
        return Completion(
            id=f"cmpl-{self._request_id}", created=self._created_s, model=self._model, choices=choices, usage=usage
        )

    def _logprobs(self, records: Sequence[Record]) -> Logprobs | None:
        values = answers.logprobs_of(records)
        if not values:
            return None
        offsets, offset = [], self._offset
        for value in values:
            offsets.append(offset)
            offset += len(value.token)
        return Logprobs(
            tokens=[value.token for value in values],
            token_logprobs=[value.logprob for value in values],
            top_logprobs=[{other.token: other.logprob for other in value.top_logprobs or ()} for value in values],
            text_offset=offsets,
        )

    def __repr__(self) -> str:
        return f"CompletionRendering(stream={self.stream})"


def _reason(record: Record) -> str:
    return "length" if record.done_reason == "length" else "stop"
