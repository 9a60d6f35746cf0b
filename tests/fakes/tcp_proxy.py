"""A TCP proxy between clients and a server that spoils what passes, as a test asks it to.

A `Link` is the way between one client and the server. A proxy is a link itself, for everybody; with `link_of` it tells
its clients apart, and each has a link of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Self

_LOOK_S = 0.005
_PIECES_WAITING = 4096
# Of the bytes of a narrow link, how often some are sent.
_TICK_S = 0.05
_RST_ON_CLOSE = struct.pack("ii", 1, 0)


class Link:
    """One way through a proxy, and what is wrong with it now. All of it may be set from any thread.

    ``delay`` gives seconds for each piece of data. True while they shall hold: ``swallow_requests`` and
    ``swallow_replies`` lose what comes from either side, ``hold_requests`` and ``hold_replies`` keep it until they are
    false again, as a network does that is away for a while; ``refuses`` resets new connections, ``hangs`` accepts them
    and does nothing more. ``slice_bytes`` sends pieces of at most so many bytes, ``bytes_per_s`` so many each second;
    0 is without a bound.
    """

    def __init__(self) -> None:
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.connections = 0
        self._frozen = 0
        self.heal()

    def __repr__(self) -> str:
        wrong = {name: value for name, value in vars(self).items() if value and not name.startswith("_")}
        return f"{type(self).__name__}({wrong})"

    def heal(self) -> None:
        """Nothing is wrong any more; connections live on."""
        self.delay: Callable[[], float] | None = None
        self.swallow_requests = self.swallow_replies = False
        self.hold_requests = self.hold_replies = False
        self.refuses = self.hangs = False
        self.slice_bytes = 0
        self.bytes_per_s = 0
        self._frozen = 0

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""
        return bool(self._writers)

    def freeze(self) -> None:
        """Holds everything on the connections that there are, until the link is healed; new ones are well."""
        self._frozen = self.connections

    def reset(self) -> None:
        """Cuts every connection with a RST, soon."""
        if self._loop is not None and self._loop.is_running():
            self._loop.call_soon_threadsafe(self._abort)

    def _abort(self) -> None:
        for writer in tuple(self._writers):
            _reset(writer)

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: tuple[str, int]) -> None:
        """Carries one connection to its end."""
        self._loop = asyncio.get_running_loop()
        self.connections += 1
        number = self.connections
        self._writers.add(writer)
        try:
            if self.refuses:
                raise ConnectionResetError
            while self.hangs:
                await asyncio.sleep(_LOOK_S)
            server_reader, server_writer = await asyncio.open_connection(*target)
            self._writers.add(server_writer)
            try:
                async with asyncio.TaskGroup() as pumps:
                    pumps.create_task(self._pump(reader, server_writer, number, is_request=True))
                    pumps.create_task(self._pump(server_reader, writer, number, is_request=False))
            except* EOFError:
                # Either side has closed properly, and what it said before has been delivered.
                server_writer.close()
                writer.close()
            finally:
                self._writers.discard(server_writer)
                if not server_writer.is_closing():
                    _reset(server_writer)
        finally:
            self._writers.discard(writer)
            if not writer.is_closing():
                _reset(writer)

    def _is_held(self, number: int, *, is_request: bool) -> bool:
        return number <= self._frozen or (self.hold_requests if is_request else self.hold_replies)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int, *, is_request: bool
    ) -> None:
        loop = asyncio.get_running_loop()
        pending: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_PIECES_WAITING)

        async def deliver() -> None:
            while True:
                due_s, data = await pending.get()
                await asyncio.sleep(max(0.0, due_s - loop.time()))
                while self._is_held(number, is_request=is_request):
                    await asyncio.sleep(_LOOK_S)
                if not data:
                    raise EOFError
                await self._send(writer, data)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(deliver())
            while True:
                data = await reader.read(65536)
                is_lost = self.swallow_requests if is_request else self.swallow_replies
                if not data or not is_lost:
                    await pending.put((loop.time() + (self.delay() if self.delay else 0.0), data))
                if not data:
                    break

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        if not (self.slice_bytes or self.bytes_per_s):
            writer.write(data)
            await writer.drain()
            return
        while data:
            size = self.slice_bytes or len(data)
            if self.bytes_per_s:
                size = min(size, max(1, int(self.bytes_per_s * _TICK_S)))
            piece, data = data[:size], data[size:]
            writer.write(piece)
            await writer.drain()
            # A slice of its own: what is written in one turn could leave as one segment.
            await asyncio.sleep(len(piece) / self.bytes_per_s if self.bytes_per_s else 0)


class TCPProxy(Link):
    """Forwards to ``host:port``. ``link_of`` gives the link of a client's port to a port of ours; it runs in a thread.

    Without it, all clients share this link.
    """

    def __init__(self, host: str, port: int, *, link_of: Callable[[int, int], Link] | None = None) -> None:
        super().__init__()
        self._target = (host, port)
        self._link_of = link_of
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def turn_to(self, port: int) -> None:
        """New connections go to another server on the same host."""
        self._target = (self._target[0], port)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self._abort()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link: Link = self
        try:
            if self._link_of is not None:
                link = await asyncio.to_thread(self._link_of, writer.get_extra_info("peername")[1], self.port)
            await link.carry(reader, writer, self._target)
        except* OSError:
            _reset(writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        connection: socket.socket = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
    writer.transport.abort()


@contextlib.asynccontextmanager
async def proxied(host: str, port: int) -> AsyncIterator[TCPProxy]:
    """A running proxy."""
    async with TCPProxy(host, port) as proxy:
        yield proxy


@contextlib.contextmanager
def proxies_in_a_thread(proxies: Sequence[TCPProxy]) -> Iterator[None]:
    """Runs proxies in an event loop of their own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def do(*steps: Callable[[], object]) -> None:
        async def each() -> None:
            for step in steps:
                await step()  # type: ignore[misc] # they enter and leave proxies

        asyncio.run_coroutine_threadsafe(each(), loop).result(10)

    do(*(proxy.__aenter__ for proxy in proxies))
    try:
        yield
    finally:
        do(*((lambda one=proxy: one.__aexit__(None, None, None)) for proxy in proxies))
        asyncio.run_coroutine_threadsafe(loop.shutdown_default_executor(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextlib.contextmanager
def proxy_in_a_thread(port: int) -> Iterator[TCPProxy]:
    """A proxy to a port of this machine, in a loop of its own."""
    proxy = TCPProxy("127.0.0.1", port)
    with proxies_in_a_thread([proxy]):
        yield proxy
