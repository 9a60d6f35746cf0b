"""A connection that is lost says so in the library's words, whoever notices first."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import ConnectionError as ConnectionLostError

from deploy.local.redis import Redis
from shared.redisconnection import RedisConnection
from tests.fakes.tcp_proxy import proxied
from tests.fakes.waiting import until

pytestmark = pytest.mark.redis


async def test_writing_to_a_connection_that_was_reset_is_a_lost_connection(redis: Redis):
    async with proxied("127.0.0.1", redis.port) as proxy:
        password = redis.url.partition("//:")[2].partition("@")[0]
        connection: Any = RedisConnection(host="127.0.0.1", port=proxy.port, password=password, protocol=2)
        await connection.connect()
        proxy.reset()
        # The transport is gone, and nobody has read from it, who would have heard of it.
        transport = connection._writer.transport
        await until(lambda: transport.is_closing() and transport._loop is None)
        with pytest.raises(ConnectionLostError):
            await connection.send_packed_command(b"*1\r\n$4\r\nPING\r\n", check_health=False)
        assert not connection.is_connected
