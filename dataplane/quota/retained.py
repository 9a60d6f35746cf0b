"""Usage events that Redis has taken and the ledger has not: should Redis lose its data, only this worker knows them.

They are kept until the drained watermark of their shard has passed them, metadata only and not more than
``MAX_EVENTS``: beyond that the oldest are forgotten, which matters only if Redis loses them too before the ledger has
them.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from shared import records
from shared.keyspace import LeaseId, Shard
from shared.records import UsageEvent

MAX_EVENTS = 16_384

# An id of a stream: milliseconds and a number within them.
_EntryId = tuple[int, int]


class RetainedEvent(NamedTuple):
    """An event without texts, and the lease that it has closed (or none, where it only has an id)."""

    lease_id: LeaseId
    raw: bytes
    is_correction: bool = False


def retained_event(event: UsageEvent) -> RetainedEvent:
    """What is kept of an event."""
    if event.prompt is not None or event.reply is not None:
        event = msgspec.structs.replace(event, prompt=None, reply=None, prompt_log_days=None)
    lease_id = event.event_id.removesuffix(records.CORRECTION_SUFFIX)
    return RetainedEvent(LeaseId(lease_id), records.encode(event), is_correction=lease_id != event.event_id)


class Retained:
    """The events of all shards."""

    def __init__(self, *, capacity: int = MAX_EVENTS) -> None:
        self._capacity = capacity
        self._count = 0
        self._by_shard: defaultdict[Shard, deque[tuple[_EntryId, RetainedEvent]]] = defaultdict(deque)

    def keep(self, shard: Shard, entry_id: bytes, event: RetainedEvent) -> None:
        """Keeps an event that Redis has taken under this id of its stream."""
        parsed = _parsed(entry_id)
        if parsed is None:
            return
        if self._count >= self._capacity:
            self._forget_oldest()
        self._by_shard[shard].append((parsed, event))
        self._count += 1

    def drained(self, shard: Shard, watermark: bytes | None) -> None:
        """Everything up to the watermark is in the ledger."""
        events = self._by_shard.get(shard)
        parsed = None if watermark is None else _parsed(watermark)
        while events and parsed is not None and events[0][0] <= parsed:
            events.popleft()
            self._count -= 1

    def of(self, shard: Shard) -> Iterator[RetainedEvent]:
        """What is kept of a shard, oldest first."""
        return (event for _, event in self._by_shard.get(shard, ()))

    def _forget_oldest(self) -> None:
        longest = max(self._by_shard.values(), key=len)
        longest.popleft()
        self._count -= 1

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"Retained({self._count} events)"


def _parsed(entry_id: bytes) -> _EntryId | None:
    milliseconds, _, number = entry_id.partition(b"-")
    return (int(milliseconds), int(number)) if milliseconds.isdigit() and number.isdigit() else None
