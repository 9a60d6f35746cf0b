"""Compares counters with the ledger, in case a server has lost or repeated something without anybody noticing.

Every ten seconds it looks at the scopes that were drained since and at some others in turn. A counter that has less
than the ledger proves that the shard has lost data: its fence is dropped, so that everything in it is denied until it
is rebuilt. One that goes on having more (a settlement was repeated after its tombstone was lost) is lowered. Neither is
decided on a first look, which may be a moment behind, but under the shard's lock.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from controlplane.core.counters import CounterName, Owner, warm_periods
from controlplane.errors import RedisUnavailableError, StoreUnavailableError
from controlplane.metrics import Metrics
from controlplane.publish.counters import CounterState
from controlplane.store import counters as ledger
from controlplane.tasks.recount import Undrained
from shared import logs
from shared.clock import Clock
from shared.keyspace import Period, Shard, shard_of

EVERY_S = 10.0
SAMPLED_KEYS = 100
MAX_TOUCHED = 10_000
# A shard that loses again what was just rebuilt has a fault that rebuilding does not cure; it must not deny for good.
HOLD_OFF_S = 60.0
_FIRST = uuid.UUID(int=0)

_log = logs.get("controlplane.tasks.guard")


class Touched:
    """Owners whose events were drained; ``take`` empties it. Of more than 10 000 the rest is left to sampling."""

    def __init__(self) -> None:
        self._owners: set[Owner] = set()

    def add(self, owners: Iterable[Owner]) -> None:
        """Remembers owners."""
        for owner in owners:
            if len(self._owners) >= MAX_TOUCHED:
                return
            self._owners.add(owner)

    def take(self) -> set[Owner]:
        """Those remembered since the last time."""
        taken, self._owners = self._owners, set()
        return taken

    def __repr__(self) -> str:
        return f"Touched({len(self._owners)})"


class CounterGuard:
    """Looks until cancelled. Any number of replicas may; each looks at what it has drained itself, and at samples."""

    def __init__(
        self,
        *,
        counters: CounterState,
        touched: Touched,
        clock: Clock,
        metrics: Metrics,
        every_s: float = EVERY_S,
    ) -> None:
        self._counters = counters
        self._touched = touched
        self._clock = clock
        self._metrics = metrics
        self._every_s = every_s
        self._sampled_to = _FIRST
        # What had too much at the last look, and how much.
        self._excess: dict[CounterName, int] = {}
        self._excessive: set[Owner] = set()
        self._dropped_at_s: dict[Shard, float] = {}

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.look()
            except (RedisUnavailableError, StoreUnavailableError) as fault:
                _log.debug("counters_not_compared", fault=str(fault))

    async def look(self) -> None:
        """One look. Raises ``RedisUnavailableError``, ``StoreUnavailableError``."""
        owners = self._touched.take() | self._excessive | await self._sample()
        try:
            await self._compare(owners)
        except (RedisUnavailableError, StoreUnavailableError):
            self._touched.add(owners)
            raise

    async def _compare(self, owners: Collection[Owner]) -> None:
        periods = warm_periods(await self._counters.now())
        by_shard: dict[Shard, list[Owner]] = defaultdict(list)
        for owner in owners:
            by_shard[shard_of(owner.tenant_id)].append(owner)
        before, self._excess, self._excessive = self._excess, {}, set()
        for shard, some in by_shard.items():
            # The ledger first: what is drained in between can only make the counters look larger.
            used = await ledger.used(some, periods)
            reading = await self._counters.read(shard, _names(some, periods))
            if reading.fence is None:
                continue
            difference = {name: value - used.get(name, 0) for name, value in reading.used.items()}
            suspects = {name for name, more in difference.items() if more < 0 or (more and before.get(name) == more)}
            if not reading.last_event:
                self._excess |= {name: more for name, more in difference.items() if more > 0}
            self._excessive |= {owner for owner in some if any((owner.scope, p) in self._excess for p in periods)}
            if suspects:
                await self._examine(shard, [owner for owner in some if _is_among(owner, suspects)], periods)

    async def _examine(self, shard: Shard, owners: Sequence[Owner], periods: Sequence[Period]) -> None:
        """Compares exactly: under the lock the ledger stands still, and what the stream adds to it is known."""
        async with ledger.locked([shard]) as lock:
            reading = await self._counters.read(shard, _names(owners, periods))
            used = await ledger.used(owners, periods)
            waiting = Undrained()
            if reading.last_event:
                waiting = await Undrained.of(self._counters, shard, until=reading.last_event)
            expected = {name: used.get(name, 0) + waiting.tokens[name] for name in reading.used}
            await lock.confirm()
            if reading.fence is not None:
                await self._put_right(shard, reading.fence, reading.used, expected)

    async def _put_right(
        self, shard: Shard, fence: bytes, found: Mapping[CounterName, int], expected: Mapping[CounterName, int]
    ) -> None:
        short = [name for name, value in found.items() if value < expected[name]]
        if short:
            if self._may_drop(shard) and await self._counters.drop_fence(shard, fence):
                self._metrics.fence_dropped()
                scope, period = short[0]
                _log.error(
                    "counters_below_ledger", shard=shard, counters=len(short), scope=scope, period=period, dropped=True
                )
            return
        excess = {name: (value, expected[name]) for name, value in found.items() if value > expected[name]}
        lowered = await self._counters.lower(shard, fence, excess) if excess else 0
        if lowered:
            self._metrics.counters_lowered(lowered)
            _log.warning("counters_above_ledger", shard=shard, counters=lowered)

    def _may_drop(self, shard: Shard) -> bool:
        now_s = self._clock.monotonic()
        last_s = self._dropped_at_s.get(shard)
        if last_s is not None and now_s - last_s < HOLD_OFF_S:
            return False
        self._dropped_at_s[shard] = now_s
        return True

    async def _sample(self) -> set[Owner]:
        found = await ledger.some_owners(self._sampled_to, SAMPLED_KEYS)
        self._sampled_to = found[-1][0] if len(found) == SAMPLED_KEYS else _FIRST
        keys = {owner for _, owner in found}
        return keys | {Owner(tenant_id=owner.tenant_id) for owner in keys}

    def __repr__(self) -> str:
        return f"CounterGuard({self._touched!r})"


def _names(owners: Iterable[Owner], periods: Sequence[Period]) -> set[CounterName]:
    return {(owner.scope, period) for owner in owners for period in periods}


def _is_among(owner: Owner, names: Collection[CounterName]) -> bool:
    return any(scope == owner.scope for scope, _ in names)
