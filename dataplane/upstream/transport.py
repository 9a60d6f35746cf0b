"""HTTP/1.1 to the backends: httpx's transport interface over pyreqwest (hyper).

Called directly, ``transport.handle_async_request(request)``, never through ``httpx.AsyncClient``: the client's own
work per request costs more than everything else here. What pyreqwest raises becomes an ``httpx.TransportError``.

Nothing of the surroundings has a say: no proxies, no redirects, no cookies, no decompression, no ``.netrc``. A reply's
body is read chunk by chunk as it arrives (``streamed_read_buffer_limit(0)`` and ``read_chunk``; pyreqwest's own httpx
transport fills a buffer first). Closing a reply before its end closes the connection.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from datetime import timedelta
from typing import Any, Self

import httpx
from pyreqwest import exceptions as pyreqwest
from pyreqwest.bytes import Bytes
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.request import StreamRequest
from pyreqwest.response import ResponseBodyReader

_ENCODING = "ascii"
_IDLE_CONNECTION_TIMEOUT_S = 30.0
# A backend that vanishes without a word is noticed after about a minute, whatever the deadline of the first record is.
_KEEPALIVE_AFTER_S = 30.0
_KEEPALIVE_INTERVAL_S = 10.0
_KEEPALIVE_PROBES = 3

_TRANSLATIONS: tuple[tuple[type[pyreqwest.PyreqwestError], type[httpx.TransportError]], ...] = (
    (pyreqwest.ConnectTimeoutError, httpx.ConnectTimeout),
    (pyreqwest.RequestTimeoutError, httpx.ReadTimeout),
    (pyreqwest.ReadError, httpx.ReadError),
    (pyreqwest.WriteError, httpx.WriteError),
    # Also a connection that was closed or reset before the first byte of a reply.
    (pyreqwest.NetworkError, httpx.ConnectError),
    (pyreqwest.DecodeError, httpx.RemoteProtocolError),
    (pyreqwest.BuilderError, httpx.LocalProtocolError),
)


class Transport(httpx.AsyncBaseTransport):
    """One pool of connections for all backends of a worker. Made inside the worker, after it was spawned."""

    def __init__(self, *, connect_timeout_s: float, max_idle_per_backend: int) -> None:
        self._client = _client(connect_timeout_s, max_idle_per_backend)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends the request and returns when the headers of the reply are there; its stream is a ``BodyStream``.

        Exactly the headers of the request are sent. Raises ``httpx.TransportError``.
        """
        stream = request.stream
        content = stream.content if isinstance(stream, Body) else await request.aread()
        try:
            exchange = (
                self._client.request(request.method, str(request.url))
                .headers([(name.decode(_ENCODING), value.decode(_ENCODING)) for name, value in request.headers.raw])
                .body_bytes(content)
                .streamed_read_buffer_limit(0)
                .build_streamed()
            )
            reply = await exchange.__aenter__()
        except (pyreqwest.PyreqwestError, ValueError) as fault:
            raise _translated(fault, httpx.ConnectError) from fault
        body = BodyStream(exchange, reply.body_reader)
        try:
            headers = [(name.encode(_ENCODING), value.encode(_ENCODING)) for name, value in reply.headers.items()]
        except ValueError as fault:
            await body.aclose()
            raise httpx.RemoteProtocolError("a header that is no text") from fault
        response = httpx.Response(reply.status, headers=headers, stream=body)
        # Said here, or httpx tries encodings on every header before the first is looked up.
        response.headers.encoding = _ENCODING
        return response

    async def aclose(self) -> None:
        """Closes all connections; requests in flight fail."""
        await self._client.close()

    def __repr__(self) -> str:
        return "Transport()"


class Body(httpx.AsyncByteStream):
    """The bytes of a request, kept whole."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    async def __aiter__(self) -> Any:
        """The content, in one piece."""
        yield self.content

    def __repr__(self) -> str:
        return f"Body({len(self.content)} bytes)"


class BodyStream(httpx.AsyncByteStream):
    """The body of a reply: an iterator over its chunks that can also say what is there without waiting."""

    def __init__(self, exchange: StreamRequest, reader: ResponseBodyReader) -> None:
        self._exchange: StreamRequest | None = exchange
        self._reader = reader
        self._read: _StartedRead | None = None
        self._fault: httpx.TransportError | None = None
        self.ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """As ``read``, for ``async for``."""
        chunk = await self.read()
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def read(self) -> bytes | None:
        """The next chunk as soon as it is there, None at the end. Raises ``httpx.TransportError``."""
        if self.ended or self._exchange is None:
            return None
        if self._fault is not None:
            raise self._fault
        started, self._read = self._read, None
        try:
            chunk = await (self._reader.read_chunk() if started is None else started)
        except pyreqwest.PyreqwestError as fault:
            raise _translated(fault, httpx.ReadError) from fault
        if chunk is None:
            self.ended = True
            return None
        return chunk.to_bytes()

    def arrived(self) -> bytes | None:
        """The next chunk if it is there already, else None; faults and the end are left to ``read``."""
        if self._read is not None or self.ended or self._fault is not None or self._exchange is None:
            return None
        read = self._reader.read_chunk()
        try:
            waits_for = read.send(None)
        except StopIteration as finished:
            chunk: Bytes | None = finished.value
            self.ended = chunk is None
            return None if chunk is None else chunk.to_bytes()
        except pyreqwest.PyreqwestError as fault:
            self._fault = _translated(fault, httpx.ReadError)
            return None
        self._read = _StartedRead(read, waits_for)
        return None

    async def aclose(self) -> None:
        """Gives the connection back if the end was read, else closes it. Never waits; calling it again does nothing."""
        exchange, self._exchange = self._exchange, None
        if self._read is not None:
            self._read.close()
            self._read = None
        if exchange is not None:
            await exchange.__aexit__(None, None, None)

    def __repr__(self) -> str:
        return f"BodyStream(ended={self.ended}, open={self._exchange is not None})"


class _StartedRead:
    """A read that has begun and waits for bytes: awaiting it goes on where it stopped.

    pyreqwest's reads return without suspending when bytes are there. Starting one by hand therefore tells whether
    there are any, which no method of the library does; a task per read would cost more than the read.
    """

    __slots__ = ("_read", "_waits_for")

    def __init__(self, read: Coroutine[Any, Any, Bytes | None], waits_for: object) -> None:
        self._read = read
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, Bytes | None]:
        waits_for = self._waits_for
        try:
            while True:
                try:
                    yield waits_for
                except BaseException as thrown:
                    waits_for = self._read.throw(thrown)
                else:
                    waits_for = self._read.send(None)
        except StopIteration as finished:
            chunk: Bytes | None = finished.value
            return chunk

    def close(self) -> None:
        """Gives the read up."""
        self._read.close()


def _client(connect_timeout_s: float, max_idle_per_backend: int) -> Client:
    return (
        ClientBuilder()
        .http1_only()
        .http1_lower_case_headers()
        .tcp_nodelay(enabled=True)
        .no_proxy()
        .follow_redirects(enable=False)
        .referer(enable=False)
        .default_cookie_store(enable=False)
        .gzip(enable=False)
        .brotli(enable=False)
        .zstd(enable=False)
        .deflate(enable=False)
        .error_for_status(enable=False)
        .connect_timeout(timedelta(seconds=connect_timeout_s))
        .pool_idle_timeout(timedelta(seconds=_IDLE_CONNECTION_TIMEOUT_S))
        .pool_max_idle_per_host(max_idle_per_backend)
        .tcp_keepalive(timedelta(seconds=_KEEPALIVE_AFTER_S))
        .tcp_keepalive_interval(timedelta(seconds=_KEEPALIVE_INTERVAL_S))
        .tcp_keepalive_retries(_KEEPALIVE_PROBES)
        .build()
    )


def _translated(fault: Exception, otherwise: type[httpx.TransportError]) -> httpx.TransportError:
    for foreign, ours in _TRANSLATIONS:
        if isinstance(fault, foreign):
            return ours(_causes(fault))
    return (httpx.LocalProtocolError if isinstance(fault, ValueError) else otherwise)(_causes(fault))


def _causes(fault: Exception) -> str:
    """The innermost cause, which names the fault and not the URL."""
    details = getattr(fault, "details", None) or {}
    causes = details.get("causes") or []
    return str(causes[-1]["message"]) if causes else type(fault).__name__
