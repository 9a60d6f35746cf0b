"""Refusals of authenticated requests: the first of a kind is audited at once, its repetitions are counted.

Ten seconds after the first, those that followed become one event with ``occurrences``; so each key adds at most two
events per kind and window, and no flood can fill the stream. While Redis is away, or takes no more of them because too
many events wait for the ledger, nothing is handed on and the counters just grow: an outage costs one event per kind,
not one per window.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

import msgspec

from dataplane.ports import Settlements
from dataplane.values import Principal
from shared.clock import Clock
from shared.records import UsageEvent

WINDOW_S = 10.0
_TICK_S = 1.0
_Kind = tuple[str, str, str, int]


class Stallable(Settlements, Protocol):
    """Settlements that say whether Redis takes them."""

    @property
    def is_stalled(self) -> bool:
        """Whether some wait because Redis did not take them."""
        ...


@dataclass(slots=True)
class _Counted:
    principal: Principal
    since_s: float
    # The latest refusal that is not handed on yet, standing for ``occurrences`` of them.
    latest: UsageEvent | None
    occurrences: int


class CollapsedRefusals:
    """Implements ``ports.Refusals``; ``run`` hands the counted ones on."""

    def __init__(self, *, settlements: Stallable, clock: Clock) -> None:
        self._settlements = settlements
        self._clock = clock
        self._counted: dict[_Kind, _Counted] = {}

    def add(self, principal: Principal, event: UsageEvent) -> None:
        """Takes one refusal. The same key, endpoint, reason and status are one kind."""
        kind = (event.key_id, event.endpoint, event.refusal, event.status)
        counted = self._counted.get(kind)
        if counted is None:
            counted = self._counted[kind] = _Counted(principal, self._clock.monotonic(), None, 0)
            if not self._settlements.is_stalled:
                self._settlements.append(principal, event)
                return
        counted.latest = event
        counted.occurrences += 1

    async def run(self) -> None:
        """Hands on what was counted until it is cancelled."""
        while True:
            await asyncio.sleep(_TICK_S)
            if not self._settlements.is_stalled:
                self.flush(older_than_s=WINDOW_S)

    def flush(self, *, older_than_s: float = 0.0) -> None:
        """Hands on every kind whose first refusal is at least so old; without an age all of them, at shutdown."""
        until_s = self._clock.monotonic() - older_than_s
        for kind, counted in tuple(self._counted.items()):
            if counted.since_s > until_s:
                continue
            del self._counted[kind]
            if counted.latest is not None:
                event = msgspec.structs.replace(counted.latest, occurrences=counted.occurrences)
                self._settlements.append(counted.principal, event)

    def __repr__(self) -> str:
        return f"CollapsedRefusals({len(self._counted)} kinds)"
