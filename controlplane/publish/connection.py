"""The client of Redis: one attempt per command, deadlines set by the caller, and its errors as ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, cast

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from controlplane.errors import RedisUnavailableError
from shared.redisconnection import RedisConnection

MAX_CONNECTIONS = 32


def connect(url: str, *, connect_timeout_s: float) -> Redis:
    """A client that connects when first used. It sets no deadline of its own on replies: some commands block."""
    # The library types its constructor loosely.
    make = cast("Any", Redis.from_url)
    client: Redis = make(
        url,
        connection_class=RedisConnection,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=None,
        socket_connect_timeout=connect_timeout_s,
        socket_keepalive=True,
        max_connections=MAX_CONNECTIONS,
        client_name="neuronetz-control",
        # Redis 7.0 does not know the command that tells the library's name and version.
        driver_info=None,
        protocol=2,
    )
    return client


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turns errors of the client, refused connections and missed deadlines into ``RedisUnavailableError``."""
    try:
        yield
    except (RedisError, OSError, TimeoutError) as fault:
        raise RedisUnavailableError(f"Redis: {type(fault).__name__}") from fault
