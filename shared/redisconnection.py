"""A connection to Redis whose loss is always an error of the client library."""

from __future__ import annotations

from collections.abc import Iterable

from redis.asyncio.connection import Connection
from redis.exceptions import ConnectionError as ConnectionLostError


class RedisConnection(Connection):
    """What ``redis://`` addresses are connected to with.

    The library writes with ``StreamWriter.writelines``. Of a transport that a RST has taken away and nobody has read
    from since, that raises AttributeError (asyncio/selector_events.py of CPython 3.12 touches the loop that the
    transport has given up), which no caller could know as a lost connection. Connections with TLS write otherwise.
    """

    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:  # noqa: FBT001, FBT002 - the library's signature
        """Writes. Raises ``redis.exceptions.ConnectionError`` when the connection is lost."""
        try:
            await super().send_packed_command(command, check_health=check_health)  # type: ignore[no-untyped-call, unused-ignore] # redis-py types it in part
        except AttributeError as fault:
            raise ConnectionLostError("the connection was lost before it was written to") from fault
