"""One connection to Redis in both directions, in front of a server that says what it is told to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Never

import pytest
from redis.exceptions import ConnectionError as ConnectionLostError
from redis.exceptions import InvalidResponse, NoScriptError, RedisError

from dataplane.quota.wire import Wire
from shared.redisconnection import RedisConnection
from tests.fakes.waiting import until

_COMMAND = b"*1\r\n$4\r\nPING\r\n"


class Server(asyncio.Protocol):
    """Keeps what it reads, in the pieces in which it came."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.pieces.append(data)


class Client:
    def __init__(self, on_reply: Callable[[Any], None] | None = None) -> None:
        self.replies: list[Any] = []
        self.lost: asyncio.Future[Never] = asyncio.get_running_loop().create_future()
        self._on_reply = on_reply or self.replies.append

    @contextlib.asynccontextmanager
    async def wired(self) -> AsyncIterator[tuple[Wire, Server]]:
        theirs = Server()
        server = await asyncio.get_running_loop().create_server(lambda: theirs, "127.0.0.1", 0)
        async with server:
            connection: Any = RedisConnection(
                host="127.0.0.1", port=server.sockets[0].getsockname()[1], protocol=2, driver_info=None
            )
            await connection.connect()
            await until(lambda: hasattr(theirs, "transport"))
            try:
                yield Wire(connection, self._on_reply, self.lost), theirs
            finally:
                theirs.transport.abort()
                await connection.disconnect(nowait=True)


async def test_commands_of_one_turn_leave_in_one_write_and_replies_arrive_in_order():
    client = Client()
    async with client.wired() as (wire, server):
        for _ in range(100):
            wire.send(_COMMAND)
        await until(lambda: server.pieces)
        assert server.pieces == [_COMMAND * 100]
        server.transport.write(b"+PONG\r\n:7\r\n$-1\r\n*2\r\n$1\r\na\r\n:1\r\n$3\r\nab")
        server.transport.write(b"c\r\n")
        await until(lambda: len(client.replies) == 5)
        assert client.replies == [b"PONG", 7, None, [b"a", 1], b"abc"]


async def test_an_error_is_a_reply_in_the_words_of_the_library():
    client = Client()
    async with client.wired() as (_wire, server):
        server.transport.write(b"-NOSCRIPT No matching script.\r\n:1\r\n")
        await until(lambda: len(client.replies) == 2)
        assert isinstance(client.replies[0], NoScriptError)
        assert not client.lost.done()


async def test_what_is_no_reply_ends_the_connection():
    client = Client()
    async with client.wired() as (wire, server):
        server.transport.write(b":1\r\nHTTP/1.1 200 OK\r\n:2\r\n")
        with pytest.raises(InvalidResponse):
            await client.lost
        await until(server.transport.is_closing)
        wire.send(_COMMAND)
        assert client.replies == [1]


async def test_a_reply_that_cannot_be_taken_ends_the_connection_and_nothing_after_it_is_heard():
    heard = []

    def refuse(reply: Any) -> None:
        heard.append(reply)
        raise RedisError("nobody asked")

    client = Client(refuse)
    async with client.wired() as (_wire, server):
        server.transport.write(b":1\r\n:2\r\n")
        with pytest.raises(RedisError, match="nobody asked"):
            await client.lost
        assert heard == [1]


async def test_a_server_that_leaves_is_a_lost_connection():
    client = Client()
    async with client.wired() as (wire, server):
        server.transport.close()
        with pytest.raises(ConnectionLostError, match="closed"):
            await client.lost
        wire.send(_COMMAND)
        await asyncio.sleep(0)


async def test_a_server_that_does_not_read_gets_everything_in_order_once_it_does():
    client = Client()
    async with client.wired() as (wire, server):
        server.transport.pause_reading()
        expected = b""
        for number in range(64):
            piece = b"%d" % (number % 10) * 256 * 1024
            expected += piece
            wire.send(piece)
            await asyncio.sleep(0)
        server.transport.resume_reading()
        await until(lambda: sum(map(len, server.pieces)) == len(expected), timeout_s=10)
        assert b"".join(server.pieces) == expected


async def test_a_wire_that_was_closed_hears_nothing_and_a_connection_that_was_closed_cannot_be_taken_over():
    client = Client()
    async with client.wired() as (wire, server):
        wire.close()
        server.transport.write(b":1\r\n")
        server.transport.close()
        await until(wire._transport.is_closing)
        assert client.replies == []
        with pytest.raises(ConnectionLostError):
            await client.lost
    with pytest.raises(ConnectionLostError):
        Wire(RedisConnection(), client.replies.append, client.lost)
