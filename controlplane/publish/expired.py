"""Leases whose time is over, as the reaper finds and closes them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import msgspec
from redis.asyncio import Redis

from controlplane.core.crashed import BrokenLeaseError, CrashedLease, crashed_lease, event_of
from controlplane.publish.connection import translated
from controlplane.publish.consumer_group import text_of
from controlplane.publish.scripts import source
from shared import keyspace, records
from shared.keyspace import SHARDS, LeaseId, Shard

# Of each shard at a time.
BATCH = 200
# A settlement that was repeated, and one that comes as late as a worker may live without Redis.
ABANDONED_TTL_MS = 120_000
REAPED_TTL_MS = 86_400_000


class Reaped(StrEnum):
    """What became of a lease; the words are those of the script."""

    REAPED = "reaped"
    RELEASED = "released"
    GONE = "gone"
    RENEWED = "renewed"
    UNFENCED = "unfenced"
    # It says nothing that could be charged: its slots are lost sight of when they expire.
    BROKEN = "broken"


class Expired(msgspec.Struct, frozen=True, kw_only=True):
    """A lease of the expiry index whose time is over; without ``lease`` nothing can be charged for it."""

    shard: Shard
    lease_id: LeaseId
    lease: CrashedLease | None


class ExpiredLeases:
    """Finds and closes them. Every method raises ``RedisUnavailableError``."""

    def __init__(self, redis: Redis, *, timeout_s: float) -> None:
        self._redis = redis
        self._timeout_s = timeout_s
        self._reap = redis.register_script(source("reap", "counters", "leases"))

    async def now_ms(self) -> int:
        """The time of the server."""
        with translated():
            async with asyncio.timeout(self._timeout_s):
                seconds, microseconds = await self._redis.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def find(self, *, now_ms: int) -> list[Expired]:
        """At most ``BATCH`` leases of each shard, the oldest first."""
        with translated():
            async with asyncio.timeout(self._timeout_s), self._redis.pipeline(transaction=False) as pipe:
                for shard in SHARDS:
                    pipe.zrangebyscore(keyspace.expiry(shard), "-inf", now_ms, start=0, num=BATCH)
                found = await pipe.execute()
            ids = [
                (shard, LeaseId(text_of(member)))
                for shard, members in zip(SHARDS, found, strict=True)
                for member in members
            ]
            if not ids:
                return []
            async with asyncio.timeout(self._timeout_s), self._redis.pipeline(transaction=False) as pipe:
                for shard, lease_id in ids:
                    pipe.get(keyspace.lease(shard, lease_id))
                values = await pipe.execute()
        return [_expired(shard, lease_id, raw) for (shard, lease_id), raw in zip(ids, values, strict=True)]

    async def close(self, expired: Expired, incarnation: str, *, now_ms: int) -> Reaped:
        """Charges for a lease, if it is still over."""
        shard, lease = expired.shard, expired.lease
        if lease is None:
            with translated():
                async with asyncio.timeout(self._timeout_s):
                    await self._redis.zrem(keyspace.expiry(shard), expired.lease_id)
            return Reaped.BROKEN
        scopes = (lease.key, lease.tenant)
        keys = [
            keyspace.fence(shard),
            keyspace.usage(shard),
            keyspace.expiry(shard),
            keyspace.lease(shard, lease.lease_id),
            *(keyspace.leases(shard, scope) for scope in scopes),
            *(keyspace.counters(shard, scope) for scope in scopes),
        ]
        event = records.encode(event_of(lease, now_ms=now_ms))
        arguments: Sequence[Any] = (
            incarnation,
            lease.lease_id,
            event,
            ABANDONED_TTL_MS,
            REAPED_TTL_MS,
        )
        with translated():
            async with asyncio.timeout(self._timeout_s):
                return Reaped(text_of(await self._reap(keys=keys, args=arguments)))

    def __repr__(self) -> str:
        return f"ExpiredLeases(timeout_s={self._timeout_s})"


def _expired(shard: Shard, lease_id: LeaseId, raw: bytes | None) -> Expired:
    try:
        return Expired(shard=shard, lease_id=lease_id, lease=crashed_lease(lease_id, raw))
    except BrokenLeaseError:
        return Expired(shard=shard, lease_id=lease_id, lease=None)
