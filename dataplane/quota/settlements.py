"""Settlements: what a request leaves behind when it is over, owned by the worker and not by the request.

A settlement is sent in the same turn of the event loop in which it is handed over; nobody waits for it, so no
cancellation can reach it. What Redis did not acknowledge waits in a ring and is sent again until it did. The ring only
fills while Redis is away; once it holds ``capacity`` settlements nothing more is admitted, so that it outgrows that by
no more than the requests that were in flight.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from dataplane.errors import CannotCheckError
from dataplane.quota.calls import Calls
from dataplane.quota.link import Link
from dataplane.quota.retained import Retained, RetainedEvent, retained_event
from dataplane.quota.scripts import Call
from dataplane.values import Lease, Principal
from shared import logs, records
from shared.backoff import Backoff
from shared.keyspace import LeaseId, Shard
from shared.records import UsageEvent

_ACKNOWLEDGED = frozenset({b"settled", b"again", b"charged", b"corrected", b"appended"})
_REAPED = b"reaped"
_RETRIES_AT_ONCE = 64

log = logs.get(__name__)


@dataclass(slots=True)
class SettlementCounts:
    """What has happened since the worker started, for its metrics."""

    acknowledged: int = 0
    repeated: int = 0


class _Settlement(msgspec.Struct, frozen=True):
    shard: Shard
    event: RetainedEvent
    # Packs the call for the server that is there when it is sent.
    pack: Callable[[bytes], Call]
    # What is to be sent instead when the lease was charged as crashed meanwhile.
    corrected: Callable[[], _Settlement] | None = None


class Settlements:
    """Implements ``ports.Settlements``; ``run`` repeats what Redis did not acknowledge."""

    def __init__(
        self,
        *,
        link: Link,
        calls: Calls,
        capacity: int,
        on_sent: Callable[[asyncio.Future[Any]], None] | None = None,
    ) -> None:
        self._link = link
        self._calls = calls
        self._capacity = capacity
        # Hears of each settlement's reply to come, in the context of its request.
        self._on_sent = on_sent
        self.counts = SettlementCounts()
        self.retained = Retained()
        self._waiting: deque[_Settlement] = deque()
        self._in_flight = 0
        self._arrived = asyncio.Event()
        self._acknowledged = asyncio.Event()

    @property
    def is_full(self) -> bool:
        """Whether the ring holds as many settlements as it may."""
        return len(self._waiting) >= self._capacity

    @property
    def is_stalled(self) -> bool:
        """Whether settlements wait because Redis did not take them."""
        return bool(self._waiting)

    @property
    def unsettled(self) -> int:
        """Settlements that Redis has not acknowledged."""
        return len(self._waiting) + self._in_flight

    def settle(self, lease: Lease, principal: Principal, event: UsageEvent) -> None:
        """Closes a lease and charges what its usage event says. Returns at once and never raises."""
        calls = self._calls.of(principal)
        raw, tokens = records.encode(event), event.prompt_tokens + event.completion_tokens

        def corrected() -> _Settlement:
            log.warning("lease_was_reaped", lease_id=lease.lease_id)
            correction = correction_of(lease, event)
            raw, tokens = records.encode(correction), correction.prompt_tokens + correction.completion_tokens
            return _Settlement(
                lease.shard,
                retained_event(correction),
                lambda incarnation: calls.correct(incarnation, lease, raw, tokens),
            )

        self._start(
            _Settlement(
                lease.shard,
                retained_event(event) if event.prompt is not None else RetainedEvent(lease.lease_id, raw),
                lambda incarnation: calls.settle(incarnation, lease, raw, tokens),
                corrected,
            )
        )

    def append(self, principal: Principal, event: UsageEvent) -> None:
        """Appends a usage event that has no lease, once the backlog has room. Returns at once and never raises."""
        calls, raw = self._calls.of(principal), records.encode(event)
        kept = RetainedEvent(LeaseId(event.event_id), raw)
        self._start(_Settlement(principal.shard, kept, lambda incarnation: calls.append(incarnation, raw)))

    def untold(self, shard: Shard) -> list[RetainedEvent]:
        """Events of a shard that the ledger may not have: what Redis has not taken, or might lose."""
        waiting = (settlement.event for settlement in self._waiting if settlement.shard == shard)
        return [*self.retained.of(shard), *waiting]

    async def run(self) -> None:
        """Sends what waits again, in order, until it is cancelled."""
        backoff = Backoff(first_s=0.1, last_s=1.0)
        while True:
            while not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            if await self._repeat():
                backoff.reset()
            else:
                await asyncio.sleep(backoff.next_s())

    async def drained(self, timeout_s: float) -> int:
        """Waits until everything is acknowledged, at most ``timeout_s``; gives how many settlements are not.

        ``run`` must still be running. Those left over are lost with the process.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.unsettled:
                    self._acknowledged.clear()
                    await self._acknowledged.wait()
        if self.unsettled:
            log.error("settlements_lost", count=self.unsettled)
        return self.unsettled

    def _start(self, settlement: _Settlement) -> None:
        try:
            call = settlement.pack(self._link.incarnation(settlement.shard))
            future = self._link.submit(settlement.shard, call)
        except CannotCheckError:
            self._wait(settlement)
            return
        self._in_flight += 1

        def ended(future: asyncio.Future[Any]) -> None:
            self._in_flight -= 1
            if future.cancelled() or future.exception() is not None:
                self._wait(settlement)
            elif (left := self._left(settlement, future.result())) is None:
                self.counts.acknowledged += 1
                self._acknowledged.set()
            elif left is settlement:
                self._wait(settlement)
            else:
                self._start(left)

        future.add_done_callback(ended)
        if self._on_sent is not None:
            self._on_sent(future)

    def _wait(self, settlement: _Settlement) -> None:
        self._waiting.append(settlement)
        self._arrived.set()

    async def _repeat(self) -> bool:
        """Sends the oldest settlements once more, several at once; False when Redis did not take one."""
        batch = [self._waiting[index] for index in range(min(_RETRIES_AT_ONCE, len(self._waiting)))]
        taken = await asyncio.gather(*(self._sent(settlement) for settlement in batch))
        for left in taken:
            self._waiting.popleft()
            if left is not None:
                self._waiting.append(left)
        self.counts.repeated += len(batch)
        self.counts.acknowledged += taken.count(None)
        self._acknowledged.set()
        return not any(left in batch for left in taken)

    async def _sent(self, settlement: _Settlement) -> _Settlement | None:
        """Sends once more; gives what is still to be sent afterwards."""
        try:
            call = settlement.pack(self._link.incarnation(settlement.shard))
            reply = await self._link.call(settlement.shard, call)
        except CannotCheckError:
            return settlement
        return self._left(settlement, reply)

    def _left(self, settlement: _Settlement, reply: bytes) -> _Settlement | None:
        """What is still to be sent after a reply."""
        decision, _, entry_id = reply.partition(b" ")
        if decision == _REAPED and settlement.corrected is not None:
            return settlement.corrected()
        if decision not in _ACKNOWLEDGED:
            return settlement
        self.retained.keep(settlement.shard, entry_id, settlement.event)
        return None

    def __repr__(self) -> str:
        return f"Settlements(waiting={len(self._waiting)}, in_flight={self._in_flight})"


def correction_of(lease: Lease, event: UsageEvent) -> UsageEvent:
    """What makes a lease that was charged in full, as crashed, cost what its event says."""
    return msgspec.structs.replace(
        event,
        event_id=lease.lease_id + records.CORRECTION_SUFFIX,
        outcome="correction",
        prompt_tokens=event.prompt_tokens - lease.prompt_bound,
        completion_tokens=event.completion_tokens - lease.output_factor * lease.num_predict,
        prompt=None,
        reply=None,
        prompt_log_days=None,
    )
