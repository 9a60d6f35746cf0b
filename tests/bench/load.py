"""Asks a server as fast as it answers, over a fixed number of connections, at as little cost as Python has.

Each connection sends the next request as soon as the reply is whole (a closed loop). A reply with another status than
the expected one, or that is much shorter or longer than the first, ends the measurement with ``LoadError``.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self, cast
from urllib.parse import urlsplit

_TIMEOUT_S = 60.0
_LAST_CHUNK = b"0\r\n\r\n"
# Replies of one case differ in ids, times and headers only.
_TOLERANCE = 0.2
_PROMPT = "Summarise the following in one paragraph, in plain words. " + "All work and no play. " * 34


class LoadError(Exception):
    """A reply that no figure may be made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked: about 1 KB."""

    path: str
    model: str
    is_streamed: bool

    def to_bytes(self, url: str, api_key: str | None) -> bytes:
        """The request on the wire."""
        messages = [{"role": "user", "content": _PROMPT}]
        asked = {"model": self.model, "messages": messages, "stream": self.is_streamed}
        body = json.dumps(asked, separators=(",", ":")).encode()
        authorization = f"Authorization: Bearer {api_key}\r\n" if api_key else ""
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nUser-Agent: bench\r\nAccept: */*\r\n"
            f"{authorization}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


@dataclass(slots=True)
class Answers:
    """What came back. Seconds; one entry for each request, in the order of their ends."""

    took_s: list[float] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)
    # From the first request to the last reply.
    lasted_s: float = 0.0


class _Connection(asyncio.Protocol):
    """One connection of the load."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._transport: asyncio.Transport | None = None
        self._head = b""
        # Bytes of the reply that are still to come, unless it comes in chunks.
        self._left = 0
        self._is_chunked = False
        self._has_head = False
        self._size = 0
        self._tail = b""
        self._asked_at_s = 0.0
        self._first_at_s = 0.0
        self._is_busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See ``asyncio.BaseProtocol``."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """See ``asyncio.BaseProtocol``."""
        if self._is_busy:
            self._load.failed(f"the connection was lost within a reply: {exc}")

    @property
    def is_open(self) -> bool:
        """Whether it can be asked."""
        return self._transport is not None and not self._transport.is_closing()

    def ask(self) -> None:
        """Sends the request."""
        if self._transport is None or self._transport.is_closing():
            self._load.failed("the server has closed a connection")
            return
        self._has_head, self._head, self._tail, self._size = False, b"", b"", 0
        self._first_at_s = 0.0
        self._is_busy = True
        self._asked_at_s = time.perf_counter()
        self._transport.write(next(self._load.messages))

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        self._size += len(data)
        if not self._has_head:
            data = self._read_head(data)
            if not self._has_head:
                return
        if data and not self._first_at_s:
            self._first_at_s = time.perf_counter()
        if self._is_chunked:
            self._tail = (self._tail + data)[-5:] if len(data) < len(_LAST_CHUNK) else data[-5:]
            is_whole = self._tail == _LAST_CHUNK
        else:
            self._left -= len(data)
            is_whole = self._left <= 0
        if is_whole:
            self._is_busy = False
            ended_s = time.perf_counter()
            self._load.answered(self, ended_s - self._asked_at_s, self._first_at_s - self._asked_at_s, self._size)

    def _read_head(self, data: bytes) -> bytes:
        """What follows the head; notes what the head says."""
        data = self._head + data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._head = data
            return b""
        head = data[:end].lower()
        if self._load.status not in head[:16]:
            self._load.failed(f"an answer that is none: {data[:300]!r}")
        at = head.find(b"\r\ncontent-length:")
        self._is_chunked = at < 0
        if at >= 0:
            line_end = head.find(b"\r\n", at + 2)
            self._left = int(head[at + 17 : line_end if line_end >= 0 else len(head)])
        self._has_head = True
        return data[end + 4 :]

    def close(self) -> None:
        """Closes the connection."""
        self._is_busy = False
        if self._transport is not None:
            self._transport.close()


class Load:
    """Connections to one server that ask one message after the other, and then again from the first.

    async with Load(...) as load:
        answers = await load.run(seconds=2)
    """

    def __init__(self, url: str, messages: Sequence[bytes], connections: int, *, status: int = 200) -> None:
        self.messages = itertools.cycle(messages)
        self.status = b" %d " % status
        self._address = urlsplit(url)
        self._count = connections
        self._connections: list[_Connection] = []
        self._answers = Answers()
        self._until_s = 0.0
        self._busy = 0
        self._usual_bytes = 0
        self._done: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Self:
        await self._connect()
        return self

    async def _connect(self) -> None:
        """Opens what is missing: servers close connections that are idle for some seconds."""
        self._connections = [connection for connection in self._connections if connection.is_open]
        loop = asyncio.get_running_loop()
        host, port = str(self._address.hostname), int(self._address.port or 80)
        while len(self._connections) < self._count:
            _, connection = await loop.create_connection(lambda: _Connection(self), host, port)
            self._connections.append(connection)

    async def __aexit__(self, *exception: object) -> None:
        for connection in self._connections:
            connection.close()

    async def run(self, *, seconds: float, spread_s: float = 0.0) -> Answers:
        """Asks for so long; requests that were under way then are waited for and count. Raises ``LoadError``.

        The first requests of all connections are spread evenly over ``spread_s``, in which each is asked once at least.
        """
        await self._connect()
        self._answers = Answers()
        self._done = asyncio.get_running_loop().create_future()
        began_s = time.perf_counter()
        self._until_s = began_s + seconds
        self._busy = len(self._connections)
        for number, connection in enumerate(self._connections):
            if spread_s:
                asyncio.get_running_loop().call_later(spread_s * number / self._count, connection.ask)
            else:
                connection.ask()
        async with asyncio.timeout(seconds + spread_s + _TIMEOUT_S):
            await self._done
        self._answers.lasted_s = time.perf_counter() - began_s
        return self._answers

    def answered(self, connection: _Connection, took_s: float, first_s: float, size: int) -> None:
        """A reply is whole: the next request, or the end."""
        if not self._usual_bytes:
            self._usual_bytes = size
        if abs(size - self._usual_bytes) > _TOLERANCE * self._usual_bytes:
            self.failed(f"a reply of {size} bytes where {self._usual_bytes} are usual")
        self._answers.took_s.append(took_s)
        self._answers.first_s.append(first_s)
        if time.perf_counter() < self._until_s:
            connection.ask()
            return
        self._busy -= 1
        if not self._busy and self._done is not None and not self._done.done():
            self._done.set_result(None)

    def failed(self, why: str) -> None:
        """Ends the run."""
        if self._done is not None and not self._done.done():
            self._done.set_exception(LoadError(why))

    def __repr__(self) -> str:
        return f"Load({self._address.geturl()!r}, {self._count} connections)"
