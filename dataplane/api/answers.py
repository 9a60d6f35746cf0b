"""What of a backend's record is believed before it is written to a client, whichever dialect it is written in.

Texts pass; counts and durations are numbers or nothing; arguments and log probabilities are read and written anew, so
that bytes of a backend never become part of our framing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from dataplane.native import UNSET, EmbedReply, FunctionCall, Raw, Record, ToolCall, Unset
from dataplane.upstream import numbers

# Above every sensible count of tokens and 100 days of nanoseconds; exact in JavaScript's numbers too.
MAX_NUMBER = 2**53

EMPTY_OBJECT = b"{}"
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)


class TokenLogprob(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A token and the logarithm of its probability."""

    token: str
    logprob: float
    bytes: list[int] | Unset = UNSET


class Logprob(TokenLogprob, frozen=True, kw_only=True, omit_defaults=True):
    """A token that was produced, with the alternatives."""

    top_logprobs: list[TokenLogprob] | Unset = UNSET


_ENCODER = msgspec.json.Encoder()
_ANY = msgspec.json.Decoder(float_hook=numbers.finite)
_LOGPROBS = msgspec.json.Decoder(list[Logprob])


def number(value: Any) -> int | Unset:
    """A count or duration; unset for zero (as Ollama leaves it out) and for everything that is none."""
    return value if type(value) is int and 0 < value < MAX_NUMBER else UNSET


def count(value: Any) -> int:
    """A count; 0 for everything that is none."""
    return value if type(value) is int and 0 < value < MAX_NUMBER else 0


def is_timestamp(text: str) -> bool:
    """Whether a text is a moment as Go writes it (RFC 3339, up to nanoseconds)."""
    return _TIMESTAMP.fullmatch(text) is not None


def logprobs(raw: Raw | Unset) -> list[Logprob]:
    """The log probabilities of a record; none when they are malformed."""
    if raw is UNSET or numbers.are_costly(bytes(raw)):
        return []
    try:
        return _LOGPROBS.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return []


def arguments(raw: Raw) -> bytes:
    """The arguments of a tool call as one compact JSON object; an empty one when they are anything else."""
    try:
        value = _ANY.decode(raw)
        return _ENCODER.encode(value) if isinstance(value, dict) else EMPTY_OBJECT
    except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError):
        return EMPTY_OBJECT


def tool_calls(record: Record) -> list[ToolCall] | Unset:
    """The tool calls of a record, rebuilt; unset when there are none."""
    calls = _called(record)
    if not calls:
        return UNSET
    return [
        ToolCall(
            function=FunctionCall(
                name=call.function.name,
                arguments=Raw(arguments(call.function.arguments)),
                index=call.function.index,
            ),
            id=call.id,
        )
        for call in calls
    ]


def _called(record: Record) -> list[ToolCall] | Unset | None:
    return record.tool_calls if record.message is UNSET else record.message.tool_calls


def content(record: Record) -> str:
    """The text of a record: a chat's content or a generated response."""
    if record.message is not UNSET:
        return record.message.content or ""
    return record.response or ""


def thinking(record: Record) -> str:
    """What a record says of the model's thinking."""
    return (record.thinking if record.message is UNSET else record.message.thinking) or ""


def tool_calls_of(records: Sequence[Record]) -> list[ToolCall]:
    """All tool calls of a reply, in order."""
    return [call for record in records if _called(record) for call in tool_calls(record) or ()]


def logprobs_of(records: Sequence[Record]) -> list[Logprob]:
    """All log probabilities of a reply, in order."""
    return [logprob for record in records if record.logprobs is not UNSET for logprob in logprobs(record.logprobs)]


def records_of(reply: Sequence[Record] | EmbedReply) -> Sequence[Record]:
    """The records of a reply to a request that generates; anything else is a mistake of ours."""
    if type(reply) is EmbedReply or not reply:
        raise TypeError("a reply of records was expected")
    return reply


def embedded(reply: Sequence[Record] | EmbedReply) -> EmbedReply:
    """The reply to an embedding request; anything else is a mistake of ours."""
    if type(reply) is not EmbedReply:
        raise TypeError("a reply of embeddings was expected")
    return reply
