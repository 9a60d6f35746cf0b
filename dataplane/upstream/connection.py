"""One HTTP/1.1 connection to a backend: one request and its reply at a time, parsed by llhttp (httptools).

Everything is synchronous; ``changed`` is what is waited for, for the head of a reply and for more of its body. So a
cancelled request is cut off at once, at any point; a client library that goes on waiting for the head in the background
would leave a backend generating for nobody. What has arrived is handed out whole. Anything that is not exactly one
reply to one request makes the connection unusable: bytes while idle, bytes after the end, a second message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import httptools
import httpx

# A backend's head is a few hundred bytes.
_MAX_HEAD_BYTES = 32 * 1024
# Read at once, and kept for a slow reader before the socket is left alone: together what one stream may hold.
READ_BYTES = 32 * 1024
_MAX_BUFFERED_BYTES = 32 * 1024
_FIRST_FINAL_STATUS = 200

Headers = list[tuple[bytes, bytes]]


class Connection(asyncio.BufferedProtocol):
    """The client's end. ``on_lost`` hears when it is gone; faults are ``httpx.TransportError``.

    ``buffer`` is filled and parsed within one callback, so all connections of an event loop share it.
    """

    def __init__(self, on_lost: Callable[[Connection], None], buffer: memoryview) -> None:
        self.is_open = False
        self.idle_since_s = 0.0
        self._buffer = buffer
        self._loop = asyncio.get_running_loop()
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        # What follows is about one exchange.
        self.has_head = False
        self.has_ended = False
        # Of the body, what has arrived and was not taken.
        self.parts: list[bytes] = []
        self._is_busy = False
        self._is_paused = False
        self._is_reusable = False
        self._ends_with_connection = True
        self._has_begun = False
        self._head_bytes = 0
        self._unparsed_bytes = 0
        self.status = 0
        self.headers: Headers = []
        self._buffered_bytes = 0
        self._fault: httpx.TransportError | None = None
        self._parser = httptools.HttpResponseParser(self)

    def send(self, request: bytes) -> None:
        """Sends a request; its reply begins when ``has_head``. Raises ``httpx.TransportError``."""
        if self._transport is None or not self.is_open:
            raise httpx.ConnectError("the connection is closed")
        self._begin()
        self._transport.write(request)

    def changed(self) -> asyncio.Future[None]:
        """Done when there is more than there was. Raises ``httpx.TransportError`` when there never will be."""
        if self._fault is not None:
            raise self._fault
        self._waiter = waiter = self._loop.create_future()
        return waiter

    def take(self) -> bytes | None:
        """The part of the body that is there, None when there is none now."""
        parts = self.parts
        if not parts:
            return None
        taken = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self._buffered_bytes = 0
        if self._is_paused and self._transport is not None and self.is_open:
            self._is_paused = False
            self._transport.resume_reading()
        return taken

    async def read(self) -> bytes | None:
        """The next part of the body, None at its end. Raises ``httpx.TransportError``."""
        while (taken := self.take()) is None:
            if self.has_ended:
                return None
            await self.changed()
        return taken

    def finish(self) -> bool:
        """Ends the exchange. True when the connection can be used again; if not, it is closed, at once."""
        self._is_busy = False
        if self.has_ended and self._is_reusable and self.is_open and not self.parts:
            self.idle_since_s = self._loop.time()
            return True
        self.abort()
        return False

    def abort(self) -> None:
        """Closes the socket without waiting for anything."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See ``asyncio.BaseProtocol``."""
        self._transport = cast("asyncio.Transport", transport)
        self.is_open = True

    def get_buffer(self, sizehint: int) -> memoryview:
        """See ``asyncio.BufferedProtocol``."""
        del sizehint
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """See ``asyncio.BufferedProtocol``."""
        if not self._is_busy or self._fault is not None:
            self.abort()
            return
        self._has_begun = True
        if not self.has_head:
            self._unparsed_bytes += nbytes
        try:
            self._parser.feed_data(self._buffer[:nbytes])
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as fault:
            self._fail(httpx.RemoteProtocolError(f"not HTTP: {type(fault).__name__}"))
        if not self.has_head and self._unparsed_bytes > _MAX_HEAD_BYTES:
            self._fail(httpx.RemoteProtocolError("the head of the reply is too long"))
        if self._buffered_bytes > _MAX_BUFFERED_BYTES and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """See ``asyncio.BaseProtocol``."""
        self.is_open = False
        if self._is_busy and not self.has_ended:
            if self.has_head and self._ends_with_connection and exc is None:
                self.has_ended = True
            elif not self._has_begun:
                self._fail(httpx.ConnectError("the connection was closed before the first byte of a reply"))
            else:
                self._fail(httpx.ReadError("the connection was closed within a reply"))
        self._on_lost(self)
        self._wake()

    def on_message_begin(self) -> None:
        """See ``httptools.HttpResponseParser``."""
        if self.has_ended:
            self._is_reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """See ``httptools.HttpResponseParser``."""
        if self.has_ended:
            return
        name = name.lower()
        if name in (b"content-length", b"transfer-encoding"):
            self._ends_with_connection = False
        self.headers.append((name, value))
        self._head_bytes += len(name) + len(value)

    def on_headers_complete(self) -> None:
        """See ``httptools.HttpResponseParser``."""
        if self.has_ended:
            return
        self.status = self._parser.get_status_code()
        self.has_head = self.status >= _FIRST_FINAL_STATUS and self._head_bytes <= _MAX_HEAD_BYTES

    def on_body(self, body: bytes) -> None:
        """See ``httptools.HttpResponseParser``."""
        if self.has_ended:
            self._is_reusable = False
            return
        self.parts.append(body)
        self._buffered_bytes += len(body)

    def on_message_complete(self) -> None:
        """See ``httptools.HttpResponseParser``."""
        if not self.has_head:
            # An interim reply (1xx); the real one follows.
            self.headers = []
            self._ends_with_connection = True
            return
        self._is_reusable = not self.has_ended and self._parser.should_keep_alive()
        self.has_ended = True

    def _wake(self) -> None:
        """Lets the wait go on; a cancellation that came first stands."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _fail(self, fault: httpx.TransportError) -> None:
        if self._fault is None:
            self._fault = fault
        self.abort()

    def _begin(self) -> None:
        self.has_ended = False
        self._is_busy = True
        self._is_reusable = False
        self.has_head = False
        self._ends_with_connection = True
        self._has_begun = False
        self._head_bytes = 0
        self._unparsed_bytes = 0
        self.headers = []
        self._parser = httptools.HttpResponseParser(self)

    def __repr__(self) -> str:
        return f"Connection(open={self.is_open}, busy={self._is_busy})"
