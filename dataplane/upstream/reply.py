"""What is believed of a backend's reply: complete, decodable records in order, within deadlines and caps.

Iterating a ``StreamReply`` gives batches of records that were there together, up to and including the final one.
Source of the framing: ollama ``server/routes.go``: one JSON object and a line feed per record; a failure in the middle
is one more line ``{"error": …}`` under status 200.
"""

from __future__ import annotations

from typing import Self

import msgspec

from dataplane.errors import StreamBrokenError, UpstreamTimeoutError
from dataplane.native import UNSET, EmbedReply, Record
from dataplane.ports import Batch
from dataplane.upstream import numbers
from dataplane.upstream.faults import ReplyError
from dataplane.upstream.framing import FramingError, LineSplitter
from dataplane.upstream.source import Source

MAX_EMBED_REPLY_BYTES = 32 * 1024 * 1024

_DECODE_FAULTS = (msgspec.MsgspecError, ValueError, RecursionError)
_decode_record = msgspec.json.Decoder(Record, float_hook=numbers.finite).decode
_decode_embed_reply = msgspec.json.Decoder(EmbedReply, float_hook=numbers.finite).decode


class StreamReply:
    """A stream of records; see the module. ``done`` once the final record has been read.

    ``has_more`` says that bytes followed it, which a proper reply does not have.
    """

    def __init__(self, *, backend: str, source: Source, is_chat: bool, idle_timeout_s: float) -> None:
        self.backend = backend
        self.done = False
        self.has_more = False
        self.fault: ReplyError | None = None
        self._source = source
        self._splitter = LineSplitter()
        self._is_chat = is_chat
        self._idle_timeout_s = idle_timeout_s
        self._batch: list[Record] | None = None

    async def first(self, due_s: float) -> None:
        """Waits for the first valid record. Raises ``ReplyError``."""
        self._batch = await self._next(due_s)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        """The next batch. Raises ``StreamBrokenError`` or ``UpstreamTimeoutError`` when there is none and should be."""
        batch, self._batch = self._batch, None
        if batch is not None:
            return batch
        if self.done:
            raise StopAsyncIteration
        try:
            return await self._next(self._source.after(self._idle_timeout_s))
        except ReplyError as fault:
            self.fault = fault
            kind = UpstreamTimeoutError if fault.timed_out else StreamBrokenError
            raise kind(fault.detail) from fault

    async def _next(self, due_s: float) -> list[Record]:
        records: list[Record] = []
        while not records:
            if self.fault is not None:
                raise self.fault
            chunk = await self._source.chunk(due_s)
            if chunk is None:
                self._finish()
            else:
                self._take(chunk, records)
        return records

    def _take(self, chunk: bytes, records: list[Record]) -> None:
        """Appends the records that the chunk completes; what follows a fault or the final record is ignored."""
        try:
            lines = self._splitter.feed(chunk)
            for line in lines:
                record = _decode_record(line)
                if record.error is not UNSET:
                    self.fault = ReplyError("the backend reported an error in the stream")
                    return
                if (record.message if self._is_chat else record.response) is UNSET:
                    self.fault = ReplyError("a record without what was asked for")
                    return
                records.append(record)
                if record.done:
                    self.done = True
                    self.has_more = line is not lines[-1] or self._splitter.has_begun
                    return
        except FramingError as fault:
            self.fault = ReplyError(str(fault))
        except _DECODE_FAULTS:
            self.fault = ReplyError("a record that cannot be read")

    def _finish(self) -> None:
        try:
            self._splitter.finish()
        except FramingError as fault:
            self.fault = ReplyError(str(fault))
        else:
            self.fault = ReplyError("the reply ended without its final record")

    def __repr__(self) -> str:
        return f"StreamReply(backend={self.backend!r}, done={self.done}, fault={self.fault!r})"


class WholeReply:
    """The one document of ``/api/embed`` as a reply of one batch."""

    def __init__(self, *, backend: str, document: EmbedReply) -> None:
        self.backend = backend
        self.done = True
        self.has_more = False
        self.fault: ReplyError | None = None
        self._document: EmbedReply | None = document

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        """The document, once."""
        document, self._document = self._document, None
        if document is None:
            raise StopAsyncIteration
        return document

    def __repr__(self) -> str:
        return f"WholeReply(backend={self.backend!r})"


def decode_embed_reply(body: bytes, *, inputs: int) -> EmbedReply:
    """The document, with one embedding per input. Raises ``ReplyError``."""
    if numbers.are_costly(body):
        raise ReplyError("numbers that no embedding has")
    try:
        reply = _decode_embed_reply(body)
    except _DECODE_FAULTS:
        raise ReplyError("a reply that cannot be read") from None
    if len(reply.embeddings) != inputs:
        raise ReplyError("not one embedding for each input")
    return reply
