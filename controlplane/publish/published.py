"""Backends and discovered models as they stand in Redis: the bytes that snapshots are made of."""

from __future__ import annotations

import asyncio

import msgspec
from redis.asyncio import Redis

from controlplane.publish.connection import translated
from shared import keyspace


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """What was read; empty bytes where there is nothing."""

    config: bytes = b""
    discovered: bytes = b""
    # How long what was discovered stays valid, from the moment of reading.
    discovered_ttl_ms: int = 0


class PublishedState:
    """Reads both at once."""

    def __init__(self, redis: Redis, *, timeout_s: float) -> None:
        self._redis = redis
        self._timeout_s = timeout_s

    async def read(self) -> Published:
        """What is published now. Raises ``RedisUnavailableError``."""
        with translated():
            async with asyncio.timeout(self._timeout_s), self._redis.pipeline(transaction=False) as pipe:
                pipe.get(keyspace.CONFIG)
                pipe.get(keyspace.MODELS_DISCOVERED)
                # The time to live comes last, so that it is never longer than that of the record that was read.
                pipe.pttl(keyspace.MODELS_DISCOVERED)
                config, discovered, ttl_ms = await pipe.execute()
        valid = discovered is not None and ttl_ms > 0
        return Published(
            config=config or b"",
            discovered=discovered if valid else b"",
            discovered_ttl_ms=ttl_ms if valid else 0,
        )

    def __repr__(self) -> str:
        return f"PublishedState(timeout_s={self._timeout_s})"
