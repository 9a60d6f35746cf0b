"""The client's side of one inference request over ASGI: reads the body, writes the reply, notices when nobody listens.

granian neither times out a body nor tells ``send`` that the client has gone (measured with 2.8), so three things are
watched here: the body's deadline, the disconnect message of ``receive``, and writes that stall.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator

import msgspec
from litestar.types import Receive, Send

from dataplane import process
from dataplane.api import header
from dataplane.api.dialect import Caps, Endpoint, Rendering
from dataplane.api.heads import Fields
from dataplane.api.lingering import drop_body
from dataplane.api.problems import rate_headers
from dataplane.api.watching import Departures
from dataplane.errors import (
    BodyTimeoutError,
    BodyTooLargeError,
    ClientClosedError,
    GatewayError,
    IncompleteBodyError,
    RequestError,
    UnsupportedMediaError,
)
from dataplane.interrupt import Interrupt
from dataplane.native import EmbedReply, Record
from dataplane.ports import Batch
from dataplane.rates import Rates
from dataplane.values import Arrival, Credentials, InferenceRequest

Headers = list[tuple[bytes, bytes]]

# Said by us, or else the server below says its own name.
SERVER = (header.SERVER, b"neuronetz-gateway")

_IDENTITY = (b"", b"identity")
_TYPES = (
    b"application/json", b"text/json",
    # What curl -d and some clients send when they name no type of their own; the body is parsed as JSON regardless.
    b"", b"application/x-www-form-urlencoded", b"text/plain",
)  # fmt: skip


class Edge(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds at the client's edge."""

    max_body_bytes: int
    body_timeout_s: float
    write_stall_timeout_s: float
    request_id_header: bytes
    caps: Caps


class HTTPExchange:
    """Implements ``ports.Exchange`` for one request. Close it when the request is over."""

    __slots__ = (
        "_body_is_over",
        "_credentials",
        "_departures",
        "_edge",
        "_endpoint",
        "_fields",
        "_inference",
        "_loop",
        "_rates",
        "_receive",
        "_rendering",
        "_send",
        "_wants_body",
        "_watcher",
        "arrival",
        "due_s",
        "interrupt",
        "started",
    )

    def __init__(
        self,
        *,
        endpoint: Endpoint | None,
        edge: Edge,
        departures: Departures,
        arrival: Arrival,
        credentials: Credentials,
        interrupt: Interrupt,
        fields: Fields,
        wants_body: bool,
        receive: Receive,
        send: Send,
    ) -> None:
        self._endpoint = endpoint
        self._edge = edge
        self._departures = departures
        self.arrival = arrival
        self._credentials = credentials
        self.interrupt = interrupt
        self._fields = fields
        self._wants_body = wants_body
        self._receive = receive
        self._send = send
        # Whether nothing more is read of the body: all of it came, or waiting for it has failed.
        self._body_is_over = False
        self._inference: InferenceRequest | None = None
        self._rates: Rates | None = None
        self._rendering: Rendering | None = None
        self._watcher: asyncio.Task[None] | None = None
        # Whether a status line has left: from then on an error can only be an event.
        self.started = False
        # See ``watching.Waiter``.
        self.due_s = math.inf
        self._loop = asyncio.get_running_loop()

    @property
    def credentials(self) -> Credentials:
        """Who the client says it is."""
        return self._credentials

    async def inference(self) -> InferenceRequest:
        """See ``ports.Exchange``. Watches for the client's disconnect from here on."""
        if self._endpoint is None:
            raise RequestError("this route takes no inference request")
        parsed = self._endpoint.parse(await self.body(), self._edge.caps)
        self._inference = parsed.request
        self._rendering = parsed.rendering(self.arrival.request_id, self.arrival.created_at_ms // 1000)
        self._departures.expect(self)
        return parsed.request

    def admitted(self, inference: InferenceRequest, rates: Rates) -> None:
        """See ``ports.Exchange``."""
        self._inference = inference
        self._rates = rates

    async def body(self) -> bytes:
        """The whole body. Raises ``RequestError`` (400, 408, 413, 415)."""
        declared = self._declared_length()
        self.due_s = self._loop.time() + self._edge.body_timeout_s
        try:
            return await self._read(declared)
        except asyncio.CancelledError:
            # So that a body that is late is refused like any other that is wrong.
            self.interrupt.surface(BodyTimeoutError)
            raise
        finally:
            self.due_s = math.inf

    def overdue(self) -> None:
        """See ``watching.Waiter``."""
        if self.started:
            self.interrupt.fire(ClientClosedError("the client stopped reading"))
        else:
            self._body_is_over = True
            self.interrupt.fire(BodyTimeoutError("the body did not arrive in time"))

    async def deliver(self, batches: AsyncIterator[Batch]) -> None:
        """See ``ports.Exchange``."""
        rendering = self._rendering
        if rendering is None:
            raise RuntimeError("deliver() before inference()")
        if rendering.stream:
            await self._stream(rendering, batches)
        else:
            await self._whole(rendering, batches)

    def broken(self, error: GatewayError) -> bytes:
        """The terminal error event of a stream that has started."""
        return b"" if self._rendering is None else self._rendering.broken(error)

    async def reply(self, content_type: bytes, body: bytes) -> None:
        """Writes a whole reply that is no inference: a listing, a liveness text."""
        length = b"%d" % len(body)
        await self.refuse(
            200, [(header.CONTENT_TYPE, content_type), (header.CONTENT_LENGTH, length), self._request_id()], body
        )

    async def refuse(self, status: int, headers: Headers, body: bytes) -> None:
        """Writes a whole reply with exactly these headers."""
        await self._start(status, headers)
        await self._write(body if self._wants_body else b"", more=False)

    async def end_with(self, event: bytes) -> None:
        """Writes the last event of a stream that failed; the connection is cut afterwards by the caller."""
        await self._write(event, more=True)

    def start_watching(self) -> None:
        """See ``watching.Asker``."""
        self._watcher = asyncio.create_task(self._watch_disconnect())

    async def linger(self) -> None:
        """Drops what is left of a body that was refused unread; returns at once after any other request."""
        if not self._body_is_over:
            self._body_is_over = True
            await drop_body(self._fields, self._receive)

    async def close(self) -> None:
        """Stops watching the client; idempotent."""
        self._departures.forget(self)
        watcher, self._watcher = self._watcher, None
        if watcher is not None and not watcher.done():
            watcher.cancel()
            await asyncio.wait((watcher,))

    def _declared_length(self) -> int | None:
        fields = self._fields
        for value in fields.get(header.CONTENT_ENCODING, ()):
            if value.strip().lower() not in _IDENTITY:
                raise UnsupportedMediaError("Content-Encoding must be identity")
        for value in fields.get(header.CONTENT_TYPE, ()):
            if value not in _TYPES and value.partition(b";")[0].strip().lower() not in _TYPES:
                raise UnsupportedMediaError("Content-Type must be application/json")
        lengths = fields.get(header.CONTENT_LENGTH)
        if lengths is None:
            return None
        length = int(lengths[-1])
        if length > self._edge.max_body_bytes:
            raise self._too_large()
        return length

    async def _read(self, declared: int | None) -> bytes:
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] != "http.request":
                # The server below says the same of a client that left and of chunks that are none.
                self._body_is_over = True
                raise IncompleteBodyError("the body ended early")
            chunk = message["body"]
            size += len(chunk)
            if size > self._edge.max_body_bytes:
                raise self._too_large()
            chunks.append(chunk)
            # The server always ends a body with an empty message; a declared length says earlier that all is there.
            if size == declared or not message["more_body"]:
                self._body_is_over = True
                break
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _too_large(self) -> BodyTooLargeError:
        return BodyTooLargeError(f"the body is longer than {self._edge.max_body_bytes} bytes")

    async def _watch_disconnect(self) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.interrupt.fire(ClientClosedError("the client closed the connection"))
                return

    async def _stream(self, rendering: Rendering, batches: AsyncIterator[Batch]) -> None:
        async for batch in batches:
            if type(batch) is EmbedReply:
                raise TypeError("embeddings are never streamed")
            if not self.started:
                await self._start(200, self._headers(rendering))
            final = batch[-1].done
            data = rendering.batch(batch)
            if data or final:
                await self._write(data, more=not final)

    async def _whole(self, rendering: Rendering, batches: AsyncIterator[Batch]) -> None:
        records: list[Record] = []
        embedded: EmbedReply | None = None
        async for batch in batches:
            if type(batch) is EmbedReply:
                embedded = batch
            else:
                records.extend(batch)
        body = rendering.whole(records if embedded is None else embedded)
        headers = self._headers(rendering)
        headers.append((header.CONTENT_LENGTH, b"%d" % len(body)))
        await self._start(200, headers)
        await self._write(body, more=False)

    def _headers(self, rendering: Rendering) -> Headers:
        headers = [
            (header.CONTENT_TYPE, rendering.content_type),
            self._request_id(),
            (header.CACHE_CONTROL, b"no-store"),
        ]
        if self._rates is not None:
            headers += rate_headers(self._rates)
        request = self._inference
        if request is not None:
            if request.clamped:
                headers.append((header.NUM_PREDICT, b"%d" % request.num_predict))
            if request.ignored or request.unknown_fields:
                headers.append((header.IGNORED, _ignored(request)))
        return headers

    def _request_id(self) -> tuple[bytes, bytes]:
        return self._edge.request_id_header, self.arrival.request_id.encode()

    async def _start(self, status: int, headers: Headers) -> None:
        self.started = True
        headers.append(SERVER)
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _write(self, data: bytes, *, more: bool) -> None:
        self.due_s = self._loop.time() + self._edge.write_stall_timeout_s
        try:
            await self._send({"type": "http.response.body", "body": data, "more_body": more})
            if not more and self._departures.is_alone:
                process.let_the_server_go_first()
        finally:
            self.due_s = math.inf

    def __repr__(self) -> str:
        return f"HTTPExchange(request_id={self.arrival.request_id!r}, started={self.started})"


def _ignored(request: InferenceRequest) -> bytes:
    names = list(request.ignored)
    if request.unknown_fields:
        names.append(f"unknown={request.unknown_fields}")
    return ", ".join(names).encode("ascii")
