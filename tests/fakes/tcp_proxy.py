"""A TCP proxy between a client and a server that delays, black-holes and resets, as a test asks it to."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Self


class TCPProxy:
    """Forwards to ``host:port``. Set ``delay`` to a function that gives seconds per piece of data, and the others to
    True while they shall hold: ``swallow_requests`` and ``swallow_replies`` drop what comes from either side.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.delay: Callable[[], float] | None = None
        self.swallow_requests = False
        self.swallow_replies = False
        self.connections = 0

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def reset(self) -> None:
        """Cuts every connection with a RST."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.reset()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            server_reader, server_writer = await asyncio.open_connection(*self._target)
            self._writers |= {writer, server_writer}
            try:
                async with asyncio.TaskGroup() as pumps:
                    pumps.create_task(self._pump(reader, server_writer, lambda: self.swallow_requests))
                    pumps.create_task(self._pump(server_reader, writer, lambda: self.swallow_replies))
            except* OSError:
                pass
            finally:
                self._writers -= {writer, server_writer}
                writer.transport.abort()
                server_writer.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, swallows: Callable[[], bool]
    ) -> None:
        loop = asyncio.get_running_loop()
        pending: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def deliver() -> None:
            while True:
                due_s, data = await pending.get()
                await asyncio.sleep(max(0.0, due_s - loop.time()))
                writer.write(data)
                await writer.drain()

        async with asyncio.TaskGroup() as tasks:
            delivery = tasks.create_task(deliver())
            while data := await reader.read(65536):
                if not swallows():
                    pending.put_nowait((loop.time() + (self.delay() if self.delay else 0.0), data))
            delivery.cancel()
        raise ConnectionResetError


@contextlib.asynccontextmanager
async def proxied(host: str, port: int) -> AsyncIterator[TCPProxy]:
    """A running proxy."""
    async with TCPProxy(host, port) as proxy:
        yield proxy


@contextlib.contextmanager
def proxy_in_a_thread(port: int) -> Iterator[TCPProxy]:
    """A proxy to a port of this machine, in a loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    proxy = TCPProxy("127.0.0.1", port)
    asyncio.run_coroutine_threadsafe(proxy.__aenter__(), loop).result(10)
    try:
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(proxy.__aexit__(None, None, None), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
