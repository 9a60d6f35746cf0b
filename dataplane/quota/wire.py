"""Both directions of one connection to Redis: commands out, gathered, and replies in, one call each.

redis-py connects: address, TLS, credentials and database are its handshake. From then on its streams would cost more
than all else that a call costs, for each reply a chain of coroutines and for each write a task that is woken up. So the
transport is given another protocol, hiredis reads what arrives, and nothing waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Never, cast

import hiredis
from redis.asyncio.connection import AbstractConnection, DefaultParser
from redis.exceptions import ConnectionError as ConnectionLostError
from redis.exceptions import InvalidResponse, RedisError

_INCOMPLETE = object()


class Wire(asyncio.Protocol):
    """A connection that redis-py has made, taken over. ``on_reply`` hears each reply, also those that are errors.

    Raises ``redis.exceptions.ConnectionError`` for one that is closed.

    ``lost`` fails with a ``RedisError`` when the connection ends, when what arrives is no reply, and with what
    ``on_reply`` raises; from then on nothing more is read or written.
    """

    def __init__(
        self, connection: AbstractConnection, on_reply: Callable[[Any], None], lost: asyncio.Future[Never]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_reply = on_reply
        self._lost = lost
        self._outgoing: list[bytes] = []
        self._is_leaving = False
        self._is_paused = False
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse, replyError=DefaultParser.parse_error, notEnoughData=_INCOMPLETE
        )
        # No public way leads from a connection of redis-py to its socket.
        writer = connection._writer
        if writer is None:
            raise ConnectionLostError("the connection was lost before it was used")
        self._transport = cast("asyncio.Transport", writer.transport)
        self._transport.set_protocol(self)

    def send(self, packed: bytes) -> None:
        """Sends commands; those of one turn of the event loop leave together."""
        self._outgoing.append(packed)
        if not self._is_leaving:
            self._is_leaving = True
            self._loop.call_soon(self._leave)

    def close(self) -> None:
        """Hears and says nothing any more; who has made the connection ends it."""
        self._fail(ConnectionLostError("the connection is not used any more"))

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        if self._lost.done():
            return
        reader, on_reply = self._reader, self._on_reply
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not _INCOMPLETE:
                on_reply(reply)
        except RedisError as fault:
            self._fail(fault)
            self._transport.abort()

    def pause_writing(self) -> None:
        """See ``asyncio.BaseProtocol``."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """See ``asyncio.BaseProtocol``."""
        self._is_paused = False
        self._leave()

    def connection_lost(self, exc: Exception | None) -> None:
        """See ``asyncio.BaseProtocol``."""
        self._fail(ConnectionLostError("the server closed the connection" if exc is None else f"lost: {exc}"))

    def _leave(self) -> None:
        self._is_leaving = False
        if self._outgoing and not self._is_paused and not self._lost.done() and not self._transport.is_closing():
            outgoing, self._outgoing = self._outgoing, []
            self._transport.write(b"".join(outgoing))

    def _fail(self, fault: RedisError) -> None:
        if not self._lost.done():
            self._lost.set_exception(fault)
            self._lost.exception()  # whoever was to wait for it may have been cancelled

    def __repr__(self) -> str:
        return f"Wire(outgoing={len(self._outgoing)}, lost={self._lost.done()})"
