"""Moves usage events from Redis into the ledger, exactly once, whatever ends in between.

Read, record in one Postgres transaction, acknowledge. An event that is recorded but not acknowledged comes again and
changes nothing; one that is read but not recorded is held here until Postgres answers, or claimed by another replica if
this process ends. While Postgres is away nothing is acknowledged and the events wait in Redis.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence

from controlplane.core.counters import owners_of
from controlplane.core.usage import DeadLetter, UsageEventError, dead_letter, row_of
from controlplane.errors import RedisUnavailableError, StoreUnavailableError
from controlplane.metrics import Metrics
from controlplane.publish.usage_stream import StreamEntry, UsageStreams
from controlplane.store import ledger
from controlplane.store.ledger import Entry, Recorded
from controlplane.tasks.guard import Touched
from shared import logs
from shared.backoff import Backoff
from shared.clock import Clock
from shared.keyspace import SHARDS, Shard

# Of each shard at one read. Events with a prompt may have hundreds of kilobytes, so it is not large.
BATCH_PER_SHARD = 200
# For a single server: while Postgres takes the batch of one half, that of the other is read and decoded.
HALVES = (SHARDS[::2], SHARDS[1::2])
BLOCK_S = 1.0
# A pause after a small batch, in which events gather: fewer transactions, and rows no later than anybody would notice.
GATHER_S = 0.05
CLAIM_IDLE_S = 10.0
CLAIM_EVERY_S = 5.0
CONSUMER_IDLE_S = 3600.0

_log = logs.get("controlplane.tasks.drain_usage")


class UsageDrain:
    """Drains groups of shards, each on its own: ``HALVES`` for a single server, one shard per group for a cluster.

    ``claim_idle_s`` is the time after which an entry that some consumer read counts as abandoned.
    """

    def __init__(
        self,
        *,
        streams: UsageStreams,
        clock: Clock,
        metrics: Metrics,
        touched: Touched,
        groups: Sequence[Sequence[Shard]] = (SHARDS,),
        claim_idle_s: float = CLAIM_IDLE_S,
        claim_every_s: float = CLAIM_EVERY_S,
    ) -> None:
        self._streams = streams
        self._clock = clock
        self._metrics = metrics
        self._touched = touched
        self._groups = groups
        self._claim_idle_s = claim_idle_s
        self._claim_every_s = claim_every_s

    async def run(self) -> None:
        """Drains until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for shards in self._groups:
                tasks.create_task(self._run_group(shards), name=f"drain-{shards[0]}")

    async def drain(self, shards: Sequence[Shard], *, block_s: float = 0.001) -> int:
        """One round of new entries; how many there were. Raises ``RedisUnavailableError``."""
        entries = await self._streams.read(shards, count=BATCH_PER_SHARD, block_s=block_s)
        # Ids of entries begin with the server's milliseconds.
        oldest_ms = min((int(entry.entry_id.partition("-")[0]) for entry in entries), default=None)
        self._metrics.lag_seen(0.0 if oldest_ms is None else self._clock.unix_s() - oldest_ms / 1000)
        await self._record(entries)
        return len(entries)

    async def claim(self, shards: Sequence[Shard]) -> int:
        """One round of entries that others left; how many there were. Raises ``RedisUnavailableError``."""
        total = 0
        for shard in shards:
            entries = await self._streams.claim(shard, idle_s=self._claim_idle_s, count=BATCH_PER_SHARD)
            await self._record(entries)
            await self._streams.forget_consumers(shard, idle_s=CONSUMER_IDLE_S)
            total += len(entries)
        return total

    async def _run_group(self, shards: Sequence[Shard]) -> None:
        backoff = Backoff()
        claim_at_s = self._clock.monotonic()
        while True:
            try:
                if self._clock.monotonic() >= claim_at_s:
                    claimed = await self.claim(shards)
                    # More may wait where that many did.
                    claim_at_s = self._clock.monotonic() + (0.0 if claimed else self._claim_every_s)
                count = await self.drain(shards, block_s=BLOCK_S)
                backoff.reset()
                if 0 < count < BATCH_PER_SHARD:
                    await asyncio.sleep(GATHER_S)
            except RedisUnavailableError as fault:
                _log.warning("usage_drain_interrupted", shards=len(shards), fault=str(fault))
                await asyncio.sleep(backoff.next_s())

    async def _record(self, entries: Sequence[StreamEntry]) -> None:
        """Records a batch, however long Postgres is away, and acknowledges it."""
        if not entries:
            return
        usable, letters = _sorted_out(entries)
        recorded = await self._until_recorded(usable, letters)
        # Those that were recorded before may have been charged twice: they are looked at as well.
        self._touched.add(owner for entry in usable for owner in owners_of(entry.row))
        self._metrics.events_recorded(
            inserted=recorded.inserted,
            repeated=len(entries) - recorded.inserted - recorded.dead,
            buried=recorded.dead,
        )
        if recorded.dead:
            _log.error("usage_events_buried", count=recorded.dead)
        ids: defaultdict[Shard, list[str]] = defaultdict(list)
        for entry in entries:
            ids[entry.shard].append(entry.entry_id)
        for shard, entry_ids in ids.items():
            await self._streams.acknowledge(shard, entry_ids)

    async def _until_recorded(self, usable: Sequence[Entry], letters: Sequence[DeadLetter]) -> Recorded:
        backoff = Backoff()
        while True:
            started_s, succeeded = self._clock.monotonic(), False
            try:
                recorded = await ledger.record(usable, letters)
                succeeded = True
            except StoreUnavailableError as fault:
                _log.warning("usage_recording_delayed", events=len(usable), fault=str(fault))
            else:
                return recorded
            finally:
                self._metrics.ledger_written(self._clock.monotonic() - started_s, succeeded=succeeded)
            await asyncio.sleep(backoff.next_s())

    def __repr__(self) -> str:
        return f"UsageDrain(groups={len(self._groups)}, streams={self._streams!r})"


def _sorted_out(entries: Sequence[StreamEntry]) -> tuple[list[Entry], list[DeadLetter]]:
    usable: list[Entry] = []
    letters: list[DeadLetter] = []
    for entry in entries:
        try:
            if entry.raw is None:
                raise UsageEventError("no event in it")
            row = row_of(entry.raw)
        except UsageEventError as fault:
            letters.append(dead_letter(entry.shard, entry.entry_id, entry.raw, str(fault)))
        else:
            usable.append(Entry(shard=entry.shard, entry_id=entry.entry_id, raw=entry.raw, row=row))
    return usable, letters
