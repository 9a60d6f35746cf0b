"""HTTP/1.1 to the backends: a pool of our own connections.

An exchange takes one (``reusable``, else ``connected``) and gives it back (``release``); ``Source`` is the one that
does. What goes wrong is an ``httpx.TransportError``; a ``PoolTimeout`` is our own want of descriptors.

Nothing of the surroundings has a say: no proxies, no redirects, no cookies, no decompression, no ``.netrc``, no
certificates from the environment. Exactly the headers of the request are sent. Closing a reply before its end closes
the connection at once, so does cancelling the wait for its head: a backend then stops generating.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import defaultdict, deque
from collections.abc import Sequence

import httpx

from dataplane.upstream.connection import READ_BYTES, Connection

_IDLE_CONNECTION_TIMEOUT_S = 30.0
_PORTS = {"http": 80, "https": 443}
# Descriptors, memory or local ports are used up: nothing that a backend could help.
_OWN_WANT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})

Origin = tuple[str, str, int]


class Transport:
    """One pool of connections for all backends of a worker. Belongs to the event loop of its first request."""

    def __init__(self, *, connect_timeout_s: float, max_idle_per_backend: int) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._max_idle = max_idle_per_backend
        self._idle: defaultdict[Origin, deque[Connection]] = defaultdict(deque)
        self._open: set[Connection] = set()
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._tls = httpx.create_ssl_context(trust_env=False)
        self._none_open = asyncio.Event()
        self._is_closed = False

    @property
    def connections(self) -> dict[str, int]:
        """How many connections are open: ``busy`` with a request, and ``idle`` until the next one."""
        idle = sum(connection.is_open for kept in self._idle.values() for connection in kept)
        return {"busy": len(self._open) - idle, "idle": idle}

    async def aclose(self) -> None:
        """Closes all connections; requests in flight fail, and so does every later one."""
        self._is_closed = True
        self._idle.clear()
        for connection in self._open:
            connection.abort()
        if self._open:
            await self._none_open.wait()

    def release(self, origin: Origin, connection: Connection) -> None:
        """Takes a connection back at the end of its exchange: kept for the next one, or closed."""
        if not connection.finish():
            return
        idle = self._idle[origin]
        if self._is_closed or len(idle) >= self._max_idle:
            connection.abort()
            return
        idle.append(connection)
        if connection.idle_since_s - idle[0].idle_since_s > _IDLE_CONNECTION_TIMEOUT_S:
            idle.popleft().abort()

    def reusable(self, origin: Origin) -> Connection | None:
        """The connection that was used last, if it is fresh."""
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            is_fresh = asyncio.get_running_loop().time() - connection.idle_since_s < _IDLE_CONNECTION_TIMEOUT_S
            if connection.is_open and is_fresh:
                return connection
            connection.abort()
        return None

    async def connected(self, origin: Origin) -> Connection:
        """A new connection. Raises ``httpx.TransportError``."""
        scheme, host, port = origin
        if self._is_closed:
            raise httpx.ConnectError("the transport is closed")
        if scheme not in _PORTS:
            raise httpx.UnsupportedProtocol("neither http nor https")
        tls = self._tls if scheme == "https" else None
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                transport, connection = await asyncio.get_running_loop().create_connection(
                    lambda: Connection(self._lost, self._buffer), host, port, ssl=tls
                )
        except TimeoutError as fault:
            raise httpx.ConnectTimeout("no connection within its deadline") from fault
        except (OSError, UnicodeError) as fault:
            if isinstance(fault, OSError) and fault.errno in _OWN_WANT:
                raise httpx.PoolTimeout("nothing left to connect with") from fault
            raise httpx.ConnectError(type(fault).__name__) from fault
        self._take_in(connection)
        _notice_absence(transport, self._connect_timeout_s)
        return connection

    def _take_in(self, connection: Connection) -> None:
        """Counts a new connection, unless this was closed while it came about, or it was."""
        if self._is_closed or not connection.is_open:
            connection.abort()
            raise httpx.ConnectError("the connection was closed at once")
        self._open.add(connection)
        self._none_open.clear()

    def _lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        if not self._open:
            self._none_open.set()

    def __repr__(self) -> str:
        return f"Transport(open={len(self._open)}, idle={sum(map(len, self._idle.values()))})"


def origin_of(url: httpx.URL) -> Origin:
    """Where a connection for the URL leads."""
    return url.scheme, url.host, url.port or _PORTS.get(url.scheme, 0)


def encoded_head(method: str, url: httpx.URL, fields: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The lines of a request's head, the last one ended too: more may follow, or the empty line.

    Raises ``httpx.LocalProtocolError`` for a header that would break out of its line.
    """
    lines = [b"%b %b HTTP/1.1\r\n" % (method.encode(), url.raw_path)]
    lines += [b"%b: %b\r\n" % field for field in fields]
    head = b"".join(lines)
    if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines) or b"\0" in head:
        raise httpx.LocalProtocolError("a control character in a header")
    return head


def _notice_absence(transport: asyncio.Transport, connect_timeout_s: float) -> None:
    """Lets the connection fail when its other end has vanished without a word, whatever the deadline of a record is.

    That takes four times as long as connecting may, whether a request is not acknowledged (a connection that was idle
    is the first to be used again) or a reply is waited for; the second case survives two lost packets in a row.
    """
    unit_s = max(1, round(connect_timeout_s))
    options = {
        "TCP_KEEPIDLE": 2 * unit_s,
        "TCP_KEEPINTVL": unit_s,
        "TCP_KEEPCNT": 2,
        # Where there is one (Linux), it decides instead of the count.
        "TCP_USER_TIMEOUT": 4 * unit_s * 1000,
    }
    connected = transport.get_extra_info("socket")
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in options.items():
        option = getattr(socket, name, None)
        if option is not None:
            connected.setsockopt(socket.IPPROTO_TCP, option, value)
