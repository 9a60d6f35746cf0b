"""What the counters of a shard have to be: what the ledger has, and what waiting events add that it does not have yet.

Only sound while the shard's lock is held: then nothing moves from the stream into the ledger between two reads.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Sequence

from controlplane.core.counters import CounterName, charged
from controlplane.core.usage import UsageEventError, UsageRow, row_of
from controlplane.publish.counters import CounterState
from controlplane.publish.usage_stream import StreamEntry
from controlplane.store import counters as ledger
from shared.keyspace import Shard


class Undrained:
    """The charges of a shard's waiting events that are not in the ledger, each event counted once."""

    def __init__(self) -> None:
        self.tokens: Counter[CounterName] = Counter()
        self.event_ids: set[tuple[dt.date, str]] = set()

    @classmethod
    async def of(cls, state: CounterState, shard: Shard, *, until: str = "+") -> Undrained:
        """Reads the stream up to an entry. Raises ``RedisUnavailableError``, ``StoreUnavailableError``."""
        undrained = cls()
        async for page in state.waiting_events(shard, until=until):
            await undrained._add(page)
        return undrained

    async def _add(self, page: Sequence[StreamEntry]) -> None:
        rows = {(row.day, row.event.event_id): row for row in map(_row, page) if row is not None}
        new = rows.keys() - self.event_ids
        for event_id in new - await ledger.recorded(new):
            for name, tokens in charged(rows[event_id]):
                self.tokens[name] += tokens
        self.event_ids |= new

    def __repr__(self) -> str:
        return f"Undrained(events={len(self.event_ids)})"


def _row(entry: StreamEntry) -> UsageRow | None:
    if entry.raw is None:
        return None
    try:
        return row_of(entry.raw)
    except UsageEventError:
        # The drain buries it; no counter will ever have it.
        return None
