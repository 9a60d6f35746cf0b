"""The discovered models in Redis, and the lock by which replicas share the work of discovering them."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from controlplane.publish.connection import translated
from shared import keyspace, records
from shared.records import DiscoveredRecord

_HERE = Path(__file__).parent
_DISCOVERED = records.decoder(DiscoveredRecord)


class DiscoveredState:
    """Reads and writes ``gateway:models:discovered``. Every method raises ``RedisUnavailableError``."""

    def __init__(self, redis: Redis, *, timeout_s: float) -> None:
        self._redis = redis
        self._timeout_s = timeout_s
        self._write = redis.register_script((_HERE / "write_discovered.lua").read_text())

    async def now_ms(self) -> int:
        """Milliseconds since 1970 by the clock of the Redis server, the same for every replica."""
        with translated():
            async with asyncio.timeout(self._timeout_s):
                seconds, micros = await self._redis.time()
        return int(seconds) * 1000 + int(micros) // 1000

    async def read(self) -> DiscoveredRecord | None:
        """What is known; None when nothing is, or when it cannot be read."""
        with translated():
            async with asyncio.timeout(self._timeout_s):
                raw: Any = await self._redis.get(keyspace.MODELS_DISCOVERED)
        try:
            return None if raw is None else records.decode(_DISCOVERED, raw)
        except records.RecordError:
            return None

    async def write(self, record: DiscoveredRecord, *, now_ms: int) -> bool:
        """Writes a record until it expires; False when a newer one is there."""
        ttl_ms = max(1, record.expires_at_ms - now_ms)
        with translated():
            async with asyncio.timeout(self._timeout_s):
                written: int = await self._write(
                    keys=[keyspace.MODELS_DISCOVERED], args=[records.encode(record), record.revision, ttl_ms]
                )
        return bool(written)

    def __repr__(self) -> str:
        return f"DiscoveredState(timeout_s={self._timeout_s})"


class JobLock:
    """Keeps replicas from doing the same job at once; the death of a holder heals when the lock expires.

    Every method raises ``RedisUnavailableError``.
    """

    def __init__(self, redis: Redis, *, job: str, timeout_s: float) -> None:
        self._redis = redis
        self._name = keyspace.job_lock(job)
        self._timeout_s = timeout_s
        self._token = secrets.token_hex(16)
        self._extend = redis.register_script((_HERE / "extend_lock.lua").read_text())

    async def acquire(self, *, ttl_s: float, force: bool = False) -> bool:
        """Takes the lock if it is free, or with ``force`` from whoever has it."""
        with translated():
            async with asyncio.timeout(self._timeout_s):
                taken = await self._redis.set(self._name, self._token, px=round(ttl_s * 1000), nx=not force)
        return bool(taken)

    async def extend(self, *, ttl_s: float) -> bool:
        """Holds the lock for so long from now; False when somebody else has it."""
        with translated():
            async with asyncio.timeout(self._timeout_s):
                extended: int = await self._extend(keys=[self._name], args=[self._token, round(ttl_s * 1000)])
        return bool(extended)

    def __repr__(self) -> str:
        return f"JobLock({self._name})"
