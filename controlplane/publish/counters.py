"""Counters and leases as a rebuild writes them and its guard reads them.

``used`` of every counter is what the ledger has plus what the waiting events add; ``reserved`` is the sum of the open
leases. Scripts of the data plane keep both true; what is here puts them right where a server has lost or repeated data.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from enum import StrEnum
from itertools import batched
from pathlib import Path
from typing import Any

import msgspec
from redis.asyncio import Redis

from controlplane.core.counters import TOTAL, CounterName
from controlplane.publish.connection import translated
from controlplane.publish.consumer_group import text_of
from controlplane.publish.fence import TOKEN_TTL_S
from controlplane.publish.redis_state import RebuildToken
from controlplane.publish.scripts import source
from controlplane.publish.usage_stream import StreamEntry, entries_of
from shared import keyspace, layout
from shared.keyspace import LeaseId, Period, Scope, Shard
from shared.layout import Counter, LayoutError

_HERE = Path(__file__).parent
_BATCH = 500
_SCAN_COUNT = 2000
_PAGE = 500
# A page of events with prompts has tens of megabytes.
_PAGE_TIMEOUTS = 5
# A kept lease lives as long as one that was just taken, so that its worker has time to renew or to settle it.
LEASE_TTL_MS = 30_000
TOMBSTONE_TTL_MS = 120_000


class OpenLease(msgspec.Struct, frozen=True, kw_only=True):
    """A lease of the expiry index. Without scopes there is nothing behind the index any more."""

    lease_id: LeaseId
    state: str = ""
    key: Scope = Scope("")
    tenant: Scope = Scope("")
    day: str = ""
    reserved: int = 0


class Fate(StrEnum):
    """What a rebuild does with a lease; the words are those of the script."""

    KEEP = "keep"
    CLOSE = "close"
    FORGET = "forget"


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What a shard said at one moment."""

    fence: bytes | None
    used: Mapping[CounterName, int]
    # The newest waiting event, "" when none waits.
    last_event: str


class CounterState:
    """Reads and puts right. Every method raises ``RedisUnavailableError``."""

    def __init__(self, redis: Redis, *, timeout_s: float) -> None:
        self._redis = redis
        self._timeout_s = timeout_s
        self._rebuild = redis.register_script(source("rebuild_counters", "counters"))
        self._put_leases = redis.register_script((_HERE / "rebuild_leases.lua").read_text())
        self._lower = redis.register_script(source("lower_counters", "counters"))
        self._drop_fence = redis.register_script((_HERE / "drop_fence.lua").read_text())

    async def now(self) -> dt.datetime:
        """The time of the server, which decides the periods."""
        with translated():
            async with asyncio.timeout(self._timeout_s):
                seconds, _ = await self._redis.time()
        return dt.datetime.fromtimestamp(seconds, dt.UTC)

    async def read(self, shard: Shard, names: Collection[CounterName]) -> Reading:
        """Counters, fence and the newest waiting event, all of one moment."""
        scopes = list(dict.fromkeys(scope for scope, _ in names))
        with translated():
            async with asyncio.timeout(self._timeout_s), self._redis.pipeline(transaction=True) as pipe:
                pipe.get(keyspace.fence(shard))
                pipe.xrevrange(keyspace.usage(shard), count=1)
                pipe.mget(keyspace.counters(shard, scope) for scope in scopes)
                fence, newest, values = await pipe.execute()
        counters = {scope: _counters_of(raw) for scope, raw in zip(scopes, values, strict=True)}
        return Reading(
            fence=fence,
            used={(scope, period): counters[scope].get(period, Counter()).used for scope, period in names},
            last_event=newest[0][0].decode() if newest else "",
        )

    async def waiting_events(self, shard: Shard, *, until: str = "+") -> AsyncIterator[Sequence[StreamEntry]]:
        """The events that the stream still has, up to and with one, in pages."""
        after = "-"
        while True:
            with translated():
                async with asyncio.timeout(_PAGE_TIMEOUTS * self._timeout_s):
                    found = await self._redis.xrange(keyspace.usage(shard), min=after, max=until, count=_PAGE)
            if not found:
                return
            page = entries_of(shard, found)
            yield page
            after = f"({page[-1].entry_id}"

    async def open_leases(self, shard: Shard) -> list[OpenLease]:
        """Every lease of the expiry index."""
        with translated():
            async with asyncio.timeout(self._timeout_s):
                members: Any = await self._redis.zrange(keyspace.expiry(shard), 0, -1)
        ids = [LeaseId(text_of(member)) for member in members]
        return [lease for some in batched(ids, _BATCH) for lease in await self._leases(shard, some)]

    async def existing(self, shards: Collection[Shard]) -> dict[Shard, set[Scope]]:
        """The scopes of which these shards hold counters."""
        heads = {keyspace.counters(shard, Scope("")): shard for shard in shards}
        found: dict[Shard, set[Scope]] = defaultdict(set)
        cursor = 0
        while True:
            with translated():
                async with asyncio.timeout(self._timeout_s):
                    cursor, names = await self._redis.scan(cursor, match="gateway:{s*}:counters:*", count=_SCAN_COUNT)
            for name in names:
                head, marker, scope = text_of(name).partition(":counters:")
                if (shard := heads.get(head + marker)) is not None:
                    found[shard].add(Scope(scope))
            if cursor == 0:
                return found

    async def write(
        self, shard: Shard, token: RebuildToken, values: Iterable[tuple[Scope, Mapping[Period, Counter]]]
    ) -> bool:
        """Writes all counters of scopes, none where there are none; False when the token is no longer good."""
        for some in batched(values, _BATCH):
            keys = [keyspace.counters(shard, scope) for scope, _ in some]
            arguments = [layout.write_counters(counters) if counters else b"" for _, counters in some]
            if not await self._run_with_token(self._rebuild, shard, token, keys, arguments):
                return False
        return True

    async def write_leases(self, shard: Shard, token: RebuildToken, fates: Sequence[tuple[OpenLease, Fate]]) -> bool:
        """Keeps, closes and forgets leases; False when the token is no longer good."""
        for some in batched(fates, _BATCH):
            keys = [keyspace.expiry(shard)]
            arguments: list[Any] = [LEASE_TTL_MS, TOMBSTONE_TTL_MS]
            for lease, fate in some:
                keys += (
                    keyspace.lease(shard, lease.lease_id),
                    keyspace.leases(shard, lease.key),
                    keyspace.leases(shard, lease.tenant),
                )
                arguments += (lease.lease_id, fate.value)
            if not await self._run_with_token(self._put_leases, shard, token, keys, arguments):
                return False
        return True

    async def lower(self, shard: Shard, fence: bytes, values: Mapping[CounterName, tuple[int, int]]) -> int:
        """Lowers counters from what they were seen at to what they have to be; how many it could."""
        lowered = 0
        for some in batched(values.items(), _BATCH):
            scopes = list(dict.fromkeys(scope for (scope, _), _ in some))
            keys = [keyspace.fence(shard), *(keyspace.counters(shard, scope) for scope in scopes)]
            arguments: list[Any] = [fence]
            for (scope, period), (was, must) in some:
                # The fence is the first of the keys.
                arguments += (2 + scopes.index(scope), "0" if period == TOTAL else period, was, must)
            with translated():
                async with asyncio.timeout(self._timeout_s):
                    lowered += await self._lower(keys=keys, args=arguments)
        return lowered

    async def drop_fence(self, shard: Shard, fence: bytes) -> bool:
        """Denies everything in the shard until it is rebuilt, if its fence is still this one."""
        with translated():
            async with asyncio.timeout(self._timeout_s):
                return bool(await self._drop_fence(keys=[keyspace.fence(shard)], args=[fence]))

    async def _run_with_token(
        self, script: Any, shard: Shard, token: RebuildToken, keys: Sequence[str], arguments: Sequence[Any]
    ) -> bool:
        head = [token.value, token.incarnation, 1000 * TOKEN_TTL_S]
        with translated():
            async with asyncio.timeout(self._timeout_s):
                answer = await script(
                    keys=[keyspace.rebuild_token(shard), keyspace.fence(shard), *keys], args=[*head, *arguments]
                )
        return bool(answer != -1)

    async def _leases(self, shard: Shard, ids: Iterable[LeaseId]) -> list[OpenLease]:
        ids = list(ids)
        with translated():
            async with asyncio.timeout(self._timeout_s), self._redis.pipeline(transaction=False) as pipe:
                for lease_id in ids:
                    pipe.get(keyspace.lease(shard, lease_id))
                values = await pipe.execute()
        return [_lease(lease_id, raw) for lease_id, raw in zip(ids, values, strict=True)]

    def __repr__(self) -> str:
        return f"CounterState(timeout_s={self._timeout_s})"


def _lease(lease_id: LeaseId, raw: bytes | None) -> OpenLease:
    state = layout.state_of(raw)
    try:
        found = layout.read_lease(raw or b"")
    except LayoutError:
        return OpenLease(lease_id=lease_id, state=state)
    return OpenLease(
        lease_id=lease_id, state=state, key=found.key, tenant=found.tenant, day=found.day, reserved=found.reserved
    )


def _counters_of(raw: bytes | None) -> Mapping[Period, Counter]:
    """Counters that say nothing have lost all that the ledger has."""
    try:
        return layout.read_counters(raw)
    except LayoutError:
        return {}
