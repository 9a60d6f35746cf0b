"""What the dialects have in common: the caps of a request, and the two halves that each endpoint consists of.

``Endpoint.parse`` turns the bytes of a body into a ``Parsed``; the ``Rendering`` that it makes turns upstream records
into the bytes of the reply. Both are pure. An endpoint that can stream starts every stream with its first record and
ends it with exactly one terminal event: its own final one, or ``broken``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from dataplane.errors import GatewayError
from dataplane.native import EmbedReply, Record
from dataplane.values import Dialect, InferenceRequest

NDJSON = b"application/x-ndjson"
EVENT_STREAM = b"text/event-stream"
JSON = b"application/json"
# What Ollama says for whole replies.
JSON_UTF8 = b"application/json; charset=utf-8"


class Caps(msgspec.Struct, frozen=True, kw_only=True):
    """The most that one request may ask for. Beyond ``max_num_predict`` is clamped, beyond all others refused (400)."""

    max_num_predict: int
    max_messages: int = 2048
    # Per request, over all messages.
    max_images: int = 32
    # Texts of one embedding request; each becomes a task of its own in the backend. The same cap as OpenAI's.
    max_inputs: int = 2048
    max_stops: int = 16
    max_stop_bytes: int = 256
    # Of a JSON schema in ``format`` or ``response_format``: it becomes a grammar, at the backend's cost.
    max_schema_depth: int = 32
    max_schema_bytes: int = 65_536
    max_tools: int = 128
    max_tool_calls: int = 128
    max_top_logprobs: int = 20
    max_dimensions: int = 65_536


class Rendering(Protocol):
    """The reply to one request, in its dialect; keeps what a stream has said so far."""

    @property
    def stream(self) -> bool:
        """Whether the client asked for a stream: ``batch`` and ``broken`` write it, else ``whole`` does."""
        ...

    @property
    def content_type(self) -> bytes:
        """The content type of the reply."""
        ...

    def batch(self, records: Sequence[Record]) -> bytes:
        """What a stream says for these records; includes the terminal events when one of them is final."""
        ...

    def whole(self, reply: Sequence[Record] | EmbedReply) -> bytes:
        """The body of a reply that is not streamed, from all of its records."""
        ...

    def broken(self, error: GatewayError) -> bytes:
        """The one terminal event of a stream that cannot be finished."""
        ...


class Parsed(msgspec.Struct, frozen=True):
    """A request and how to answer it. ``rendering`` takes the request id and the time in seconds since 1970."""

    request: InferenceRequest
    rendering: Callable[[str, int], Rendering]


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One inference route.

    ``parse`` raises ``RequestError`` for a body that breaks a rule and then, whatever the model, ``ForbiddenError`` for
    a name that can never be a model here. Being invalid is therefore answered like being forbidden, and later rules
    (grants, existence) meet only bodies that are in order.
    """

    name: str
    dialect: Dialect
    parse: Callable[[bytes, Caps], Parsed]
