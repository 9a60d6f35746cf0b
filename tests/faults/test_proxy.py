"""The fault proxy does what its links say: the other tests of this folder rely on it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest

from tests.fakes.tcp_proxy import TCPProxy
from tests.fakes.waiting import until


@contextlib.asynccontextmanager
async def shouting(proxy_of=TCPProxy) -> AsyncIterator[tuple[TCPProxy, list[bytes]]]:
    """A proxy to a server that answers in capitals, and the pieces that the server read."""
    pieces: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                pieces.append(data)
                writer.write(data.upper())
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, proxy_of("127.0.0.1", server.sockets[0].getsockname()[1]) as proxy:
        yield proxy, pieces


@contextlib.asynccontextmanager
async def connected(proxy: TCPProxy) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def test_what_is_held_arrives_when_it_is_let_go_and_not_before():
    async with shouting() as (proxy, pieces), connected(proxy) as (reader, writer):
        proxy.hold_replies = True
        writer.write(b"one")
        await until(lambda: pieces == [b"one"])
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(3), 0.1)
        proxy.hold_requests = True
        writer.write(b"two")
        proxy.hold_replies = False
        assert await reader.readexactly(3) == b"ONE"
        assert pieces == [b"one"]
        proxy.heal()
        assert await reader.readexactly(3) == b"TWO"


async def test_slices_and_a_narrow_link_change_nothing_but_the_pieces():
    async with shouting() as (proxy, pieces), connected(proxy) as (reader, writer):
        proxy.slice_bytes = 1
        writer.write(b"x" * 50)
        assert await reader.readexactly(50) == b"X" * 50
        assert len(pieces) > 5
        proxy.heal()
        proxy.bytes_per_s = 2000
        before_s = time.monotonic()
        writer.write(b"y" * 1000)
        assert await reader.readexactly(1000) == b"Y" * 1000
        assert time.monotonic() - before_s > 0.4


async def test_a_refused_connection_is_reset_and_a_hanging_one_says_nothing():
    async with shouting() as (proxy, pieces):
        proxy.refuses = True
        async with connected(proxy) as (reader, _):
            with pytest.raises(ConnectionResetError):
                await reader.read(1)
        proxy.heal()
        proxy.hangs = True
        async with connected(proxy) as (reader, writer):
            writer.write(b"late")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.1)
            assert pieces == []
            proxy.reset()
            with pytest.raises(ConnectionResetError):
                await reader.read(1)


async def test_a_reset_cuts_open_connections_and_an_end_delivers_what_was_said():
    async with shouting() as (proxy, _):
        async with connected(proxy) as (reader, writer):
            writer.write(b"one")
            assert await reader.readexactly(3) == b"ONE"
            proxy.reset()
            with pytest.raises(ConnectionResetError):
                await reader.read(1)
        async with connected(proxy) as (reader, writer):
            proxy.delay = lambda: 0.05
            writer.write(b"last")
            assert await reader.readexactly(4) == b"LAST"


async def test_a_frozen_connection_is_held_and_a_new_one_is_well():
    async with shouting() as (proxy, _), connected(proxy) as (reader, writer):
        writer.write(b"one")
        assert await reader.readexactly(3) == b"ONE"
        proxy.freeze()
        writer.write(b"two")
        async with connected(proxy) as (new_reader, new_writer):
            new_writer.write(b"three")
            assert await new_reader.readexactly(5) == b"THREE"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(3), 0.1)
        proxy.heal()
        assert await reader.readexactly(3) == b"TWO"
        assert proxy.is_open


async def test_clients_are_told_apart_by_their_ports():
    theirs = TCPProxy("127.0.0.1", 1)
    asked = []

    def link_of(port: int, own_port: int) -> TCPProxy:
        asked.append((port, own_port))
        return theirs

    async with shouting(lambda host, port: TCPProxy(host, port, link_of=link_of)) as (proxy, _):
        async with connected(proxy) as (reader, writer):
            writer.write(b"one")
            assert await reader.readexactly(3) == b"ONE"
            assert asked == [(writer.get_extra_info("sockname")[1], proxy.port)]
        assert (theirs.connections, proxy.connections) == (1, 0)
