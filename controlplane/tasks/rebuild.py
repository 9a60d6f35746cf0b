"""Rebuilds shards whose fence is gone or belongs to another run of the server, then stamps them.

Before anything else the data planes' functions are loaded where the server has not got them: no shard is stamped
without them, and workers need them to tell a rebuild what they know.

Token first, then backends, leases, records, versions and counters, then the stamp: each write of a version or counter
and the stamp itself require the token and no valid fence, so that neither a second rebuilder nor a FLUSHALL in between
can leave half a state that is believed. Digests are not in Postgres; those that Redis still has stay, the others return
through ``KeyVerifier``.

What Redis still has may be all of it (a restart), some older state (a snapshot) or nothing. Without a fence no script
charges anything, and under the shards' locks nothing moves from the streams into the ledger, so in every case

- ``used`` is what the ledger has plus what waiting events add that it does not have: neither less than the ledger nor,
  once these events are drained, more;
- an open lease whose event the ledger has is closed, for its worker has settled it after the snapshot was taken; any
  other may still be in use, keeps its reservation and gets a whole life from now on, in which its worker renews or
  settles it before the reaper charges for it; ``reserved`` is the sum of these;
- windows stay as they are: an older one only forgets, an empty Redis forgets the last minute of every key.

What Redis has lost, workers may still know: events that the ledger does not have, and the leases of running requests.
They write them under the token (``dataplane/quota/announcements.py``), for which every rebuild waits a moment. A worker
that is cut off meanwhile comes too late; its settlements find no lease and charge.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence

from controlplane.core.counters import CounterName, Owner, periods_of, warm_periods
from controlplane.core.usage import UsageEventError, day_of
from controlplane.errors import RedisUnavailableError, StoreUnavailableError
from controlplane.metrics import Metrics
from controlplane.publish.counters import CounterState, Fate, OpenLease
from controlplane.publish.fence import Fences, Server
from controlplane.publish.functions import Functions
from controlplane.publish.publisher import StatePublisher
from controlplane.publish.redis_state import RebuildToken, RedisState
from controlplane.store import counters as ledger
from controlplane.store.keys import PostgresKeys
from controlplane.store.tenants import PostgresTenants
from controlplane.tasks.recount import Undrained
from shared import layout, logs
from shared.clock import Clock
from shared.keyspace import SHARDS, Period, Scope, Shard, shard_of

POLL_S = 0.3
# A worker looks for a rebuild ten times a second, and is back within a second after its connection has broken.
ANNOUNCEMENTS_S = 1.2
ANNOUNCEMENT_GAP_S = 0.3
ANNOUNCEMENT_POLL_S = 0.1

# A scope with all counters that it has, by period.
type ScopeCounters = tuple[Scope, Mapping[Period, layout.Counter]]

_log = logs.get("controlplane.tasks.rebuild")


class FenceKeeper:
    """Watches the fences. Any number of replicas may: one rebuilds, the others find nothing left to do."""

    def __init__(
        self,
        *,
        fences: Fences,
        functions: Functions,
        state: RedisState,
        counters: CounterState,
        publisher: StatePublisher,
        keys: PostgresKeys,
        tenants: PostgresTenants,
        clock: Clock,
        metrics: Metrics,
        poll_s: float = POLL_S,
        announcements_s: float = ANNOUNCEMENTS_S,
    ) -> None:
        self._fences = fences
        self._functions = functions
        self._state = state
        self._counters = counters
        self._publisher = publisher
        self._keys = keys
        self._tenants = tenants
        self._clock = clock
        self._metrics = metrics
        self._poll_s = poll_s
        self._announcements_s = announcements_s
        self._problems: tuple[str, ...] = ()

    async def run(self) -> None:
        """Watches until cancelled."""
        told = ""
        while True:
            try:
                await self.check_once()
                told = ""
            except (RedisUnavailableError, StoreUnavailableError) as fault:
                # Everything is denied meanwhile, so the reason is said; once.
                if str(fault) != told:
                    _log.warning("rebuild_waits", fault=str(fault))
                told = str(fault)
            await asyncio.sleep(self._poll_s)

    async def check_once(self) -> int:
        """Loads the functions and rebuilds what is missing, and says how many shards it stamped.

        Raises ``RedisUnavailableError``, ``StoreUnavailableError``; the next round tries again.
        """
        server = await self._fences.server()
        self._report(server)
        missing = await self._fences.missing(server.incarnation)
        self._metrics.fences_seen(valid=0 if server.problems else len(SHARDS) - len(missing))
        if server.problems:
            return 0
        # Also while every fence is valid: a server can forget them alone.
        if not await self._functions.are_loaded() and await self._functions.load():
            _log.info("functions_loaded", functions=repr(self._functions))
        if not missing:
            return 0
        async with ledger.locked(SHARDS) as lock:
            # Whoever had the lock before may have done it.
            shards = await self._fences.missing(server.incarnation)
            return await self._rebuild(shards, server.incarnation, lock) if shards else 0

    async def _rebuild(self, shards: Sequence[Shard], incarnation: str, lock: ledger.ShardsLock) -> int:
        started_s = self._clock.monotonic()
        token = await self._fences.begin(shards, incarnation)
        workers = await self._announced(shards, token)
        if not await self._write_everything(shards, token):
            _log.warning("rebuild_lost_token", shards=len(shards))
            return 0
        # Had it been lost on the way, events might have moved into the ledger unseen.
        await lock.confirm()
        stamped = 0
        for shard in shards:
            stamped += await self._fences.stamp(shard, token)
        duration_s = self._clock.monotonic() - started_s
        self._metrics.shards_rebuilt(stamped, duration_s=duration_s)
        _log.info("shards_rebuilt", shards=stamped, duration_ms=round(duration_s * 1000), workers=workers)
        return stamped

    async def _announced(self, shards: Sequence[Shard], token: RebuildToken) -> int:
        """Gives workers the time to tell what they know; says how many did. Without keys there is nothing to know."""
        if not await ledger.has_keys():
            return 0
        workers: frozenset[str] = frozenset()
        until_s = self._clock.monotonic() + self._announcements_s
        while (now_s := self._clock.monotonic()) < until_s:
            told = await self._fences.announced(shards, token)
            if told - workers:
                # Where one has only just come, others may be on their way.
                workers, until_s = told, max(until_s, now_s + ANNOUNCEMENT_GAP_S)
            await asyncio.sleep(ANNOUNCEMENT_POLL_S)
        return len(workers)

    async def _write_everything(self, shards: Sequence[Shard], token: RebuildToken) -> bool:
        await self._publisher.reconcile_config(static=True)
        periods = warm_periods(await self._counters.now())
        found = _Found(await self._counters.existing(shards), periods)
        corrected = await ledger.corrected_leases()
        for shard in shards:
            undrained = await Undrained.of(self._counters, shard)
            fates = await _fates(await self._counters.open_leases(shard), undrained)
            # Else a settlement that comes again would correct them once more.
            fates += [(OpenLease(lease_id=lease_id), Fate.CLOSE) for lease_id in corrected.get(shard, ())]
            if not await self._counters.write_leases(shard, token, fates):
                return False
            if not await self._fences.keep(shards, token):
                return False
            found.add(shard, undrained, fates)
        return (
            await self._write_tenants(frozenset(shards), found, token)
            and await self._write_keys(shards, found, token)
            and await self._write_rest(shards, found, token)
        )

    async def _write_tenants(self, shards: Collection[Shard], found: _Found, token: RebuildToken) -> bool:
        async for page in self._tenants.every():
            tenants = [tenant for tenant in page if shard_of(tenant.id) in shards]
            owners = [Owner(tenant_id=tenant.id) for tenant in tenants]
            if not await self._state.write_tenants(tenants, token=token):
                return False
            if not await self._write_counters(owners, found, token):
                return False
        return True

    async def _write_keys(self, shards: Sequence[Shard], found: _Found, token: RebuildToken) -> bool:
        async for page in self._keys.every():
            keys = [key for key in page if shard_of(key.tenant_id) in shards]
            owners = [Owner(tenant_id=key.tenant_id, key_id=key.id) for key in keys]
            if not await self._fences.keep(shards, token):
                return False
            if not await self._state.write_keys(keys, token=token):
                return False
            if not await self._write_counters(owners, found, token):
                return False
        return True

    async def _write_counters(self, owners: Sequence[Owner], found: _Found, token: RebuildToken) -> bool:
        used = await ledger.used(owners, found.periods)
        by_shard: dict[Shard, list[ScopeCounters]] = defaultdict(list)
        for owner in owners:
            shard = shard_of(owner.tenant_id)
            by_shard[shard] += found.taken(shard, [owner.scope], used)
        for shard, values in by_shard.items():
            if not await self._counters.write(shard, token, values):
                return False
        return True

    async def _write_rest(self, shards: Sequence[Shard], found: _Found, token: RebuildToken) -> bool:
        """Counters that Redis has and nobody asked for: of nothing in Postgres."""
        for shard in shards:
            if not await self._counters.write(shard, token, found.taken(shard, found.rest(shard), {})):
                return False
        return True

    def _report(self, server: Server) -> None:
        if server.problems != self._problems:
            self._problems = server.problems
            _log.log(40 if server.problems else 20, "redis_settings_judged", problems=list(server.problems))

    def __repr__(self) -> str:
        return f"FenceKeeper(problems={self._problems})"


class _Found:
    """What the shards were found to hold; the counters of each scope are taken out once, when they are written."""

    def __init__(self, existing: dict[Shard, set[Scope]], periods: Sequence[Period]) -> None:
        self.periods = periods
        self._existing = existing
        self._undrained: dict[Shard, Counter[CounterName]] = defaultdict(Counter)
        self._reserved: dict[Shard, Counter[CounterName]] = defaultdict(Counter)

    def add(self, shard: Shard, undrained: Undrained, fates: Sequence[tuple[OpenLease, Fate]]) -> None:
        """Adds a shard's waiting events and the leases that it keeps."""
        self._undrained[shard].update(undrained.tokens)
        for lease, fate in fates:
            if fate is Fate.KEEP:
                for scope in (lease.key, lease.tenant):
                    for period in periods_of(lease.day):
                        self._reserved[shard][scope, period] += lease.reserved

    def rest(self, shard: Shard) -> set[Scope]:
        """Scopes of the shard that were not taken."""
        counted = self._undrained[shard].keys() | self._reserved[shard].keys()
        return self._existing.get(shard, set()) | {scope for scope, _ in counted}

    def taken(self, shard: Shard, scopes: Collection[Scope], used: dict[CounterName, int]) -> Iterator[ScopeCounters]:
        """Takes scopes out, with all their counters; those of which nothing is known and nothing there are left out."""
        for scope in scopes:
            counters = {}
            for period in self.periods:
                name = (scope, period)
                undrained, reserved = self._undrained[shard].pop(name, 0), self._reserved[shard].pop(name, 0)
                if name in used or undrained or reserved:
                    counters[period] = layout.Counter(used.get(name, 0) + undrained, reserved)
            existed = scope in self._existing.get(shard, set())
            self._existing.get(shard, set()).discard(scope)
            if counters or existed:
                yield scope, counters

    def __repr__(self) -> str:
        return f"_Found(shards={len(self._existing)})"


async def _fates(leases: Sequence[OpenLease], undrained: Undrained) -> list[tuple[OpenLease, Fate]]:
    """What becomes of a shard's leases. Raises ``StoreUnavailableError``."""
    days = {lease.lease_id: day for lease in leases if (day := _day(lease)) is not None and lease.state == "open"}
    events = {(day, str(lease_id)) for lease_id, day in days.items()}
    known = await ledger.recorded(events) | (events & undrained.event_ids)
    fates = []
    for lease in leases:
        day = days.get(lease.lease_id)
        if day is None:
            fates.append((lease, Fate.FORGET))
        else:
            fates.append((lease, Fate.CLOSE if (day, str(lease.lease_id)) in known else Fate.KEEP))
    return fates


def _day(lease: OpenLease) -> dt.date | None:
    try:
        return day_of(lease.day)
    except UsageEventError:
        return None
