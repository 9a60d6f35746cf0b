"""One connection: reads requests, asks a service for each reply, and plays the reply byte by byte."""

import asyncio
import socket
import struct
from typing import Final, Protocol, cast

from deploy.mock_ollama.framing import MalformedRequestError, RawRequest, RequestReader
from deploy.mock_ollama.performance import Ending, Framing, Performance

_LINGER_NONE: Final = struct.pack("ii", 1, 0)
_BAD_REQUEST: Final = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n400 Bad Request"
)


class Exchange(Protocol):
    """One request and its reply, as a service sees it."""

    async def performance(self) -> Performance:
        """Decide the reply; may wait."""

    def sent(self, record_count: int) -> None:
        """So many records of the reply have been written."""

    def ended(self, *, closed_by_peer: bool) -> None:
        """The reply is over, or the peer went away before it was."""


class Service(Protocol):
    """What answers the requests of a port."""

    def accepts(self) -> bool:
        """A peer connected; False resets the connection at once."""

    def begin(self, request: RawRequest, connection_number: int) -> Exchange:
        """A whole request has arrived."""


class Connection(asyncio.Protocol):
    """The server's end of one TCP connection; requests are answered one after the other."""

    def __init__(self, service: Service, number: int, siblings: "set[Connection]") -> None:
        self.number = number
        self._service = service
        self._siblings = siblings
        self._reader = RequestReader()
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self._task: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    def __repr__(self) -> str:
        return f"Connection(number={self.number}, busy={self._exchange is not None})"

    @property
    def is_busy(self) -> bool:
        """Whether a request is being answered."""
        return self._exchange is not None

    @property
    def task(self) -> "asyncio.Task[None] | None":
        """The task that answers the current request."""
        return self._task

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        self._transport.set_write_buffer_limits(high=64 * 1024)
        self._siblings.add(self)
        if not self._service.accepts():
            self.abort()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._reader.feed(data)
        if self._exchange is None:
            self._next_request()

    def eof_received(self) -> bool:
        """See asyncio.Protocol: even a half close ends a request, as in Go's server."""
        self._peer_gone()
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the interface
        """See asyncio.Protocol."""
        self._peer_gone()
        self._transport = None
        self._writable.set()
        self._siblings.discard(self)

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self._writable.set()

    def abort(self) -> None:
        """Reset the connection (RST instead of FIN)."""
        if self._transport is not None:
            sock: socket.socket = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
            self._transport.abort()

    def close(self) -> None:
        """Close the connection after what has been written is out."""
        if self._transport is not None:
            self._transport.close()

    def _peer_gone(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        exchange.ended(closed_by_peer=True)
        if self._task is not None:
            self._task.cancel()

    def _next_request(self) -> None:
        try:
            request = self._reader.take()
        except MalformedRequestError:
            self._write(_BAD_REQUEST)
            self.close()
            return
        if request is None:
            if self._reader.wants_continue:
                self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return
        exchange = self._exchange = self._service.begin(request, self.number)
        self._task = asyncio.get_running_loop().create_task(self._answer(exchange, keep_alive=request.keep_alive))

    async def _answer(self, exchange: Exchange, *, keep_alive: bool) -> None:
        try:
            performance = await exchange.performance()
            await self._play(performance, exchange)
            if performance.ending is Ending.HANG:
                await asyncio.Event().wait()
        except Exception:
            self.abort()
            raise
        if self._exchange is exchange:
            self._exchange = None
            exchange.ended(closed_by_peer=False)
            self._end(performance.ending, keep_alive=keep_alive)

    async def _play(self, performance: Performance, exchange: Exchange) -> None:
        await _pause(performance.before_head_ms)
        pending = performance.head()
        if performance.head_alone:
            await self._send(pending, performance)
            pending = b""
        chunked = performance.framing is Framing.CHUNKED
        for index, record in enumerate(performance.body(), start=1):
            await _pause(performance.record_delay_ms)
            data = b"%x\r\n%b\r\n" % (len(record), record) if chunked else record
            await self._send(pending + data, performance)
            pending = b""
            exchange.sent(index)
            await asyncio.sleep(0)  # uvloop joins the writes of one round of the loop: every record gets its own
        if chunked and performance.ending in {Ending.COMPLETE, Ending.CLOSE} and performance.sends_head:
            pending += b"0\r\n\r\n"
        if pending:
            await self._send(pending, performance)

    async def _send(self, data: bytes, performance: Performance) -> None:
        if not performance.slice_bytes:
            self._write(data)
        else:
            for start in range(0, len(data), performance.slice_bytes):
                self._write(data[start : start + performance.slice_bytes])
                await asyncio.sleep(performance.slice_delay_ms / 1000)
        if not self._writable.is_set():
            await self._writable.wait()

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _end(self, ending: Ending, *, keep_alive: bool) -> None:
        if ending is Ending.RESET:
            self.abort()
        elif ending is not Ending.COMPLETE or not keep_alive:
            self.close()
        else:
            self._next_request()


class Listener:
    """A listening port whose connections all go to one service; it can stop listening and come back."""

    def __init__(self, service: Service, host: str, port: int) -> None:
        self._service = service
        self._host = host
        self.port = port
        self._server: asyncio.Server | None = None
        self._accepted = 0
        self._connections: set[Connection] = set()

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return self._host in {"localhost", "::1"} or self._host.startswith("127.")

    def __repr__(self) -> str:
        return f"Listener({self.url!r}, listening={self._server is not None})"

    @property
    def url(self) -> str:
        """The base URL."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}"

    async def open(self) -> None:
        """Listen; raises OSError when the port is taken."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._protocol, self._host, self.port, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Stop listening; connections that are open stay."""
        if self._server is not None:
            self._server.close()
            self._server = None

    @property
    def open_connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    def close_idle(self) -> None:
        """Close the connections on which no request is being answered."""
        for connection in tuple(self._connections):
            if not connection.is_busy:
                connection.close()

    async def drop(self) -> None:
        """Reset all connections and wait until their tasks are over."""
        connections = tuple(self._connections)
        tasks = [connection.task for connection in connections if connection.task is not None]
        for connection in connections:
            connection.abort()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        while self._connections:  # noqa: ASYNC110 - the loop calls connection_lost in its next rounds
            await asyncio.sleep(0)

    def _protocol(self) -> Connection:
        self._accepted += 1
        return Connection(self._service, self._accepted, self._connections)


async def _pause(delay_ms: float) -> None:
    if delay_ms:
        await asyncio.sleep(delay_ms / 1000)
