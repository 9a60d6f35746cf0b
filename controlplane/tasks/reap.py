"""The reaper: closes the leases of workers that have died, charges all that they had reserved, and frees their slots.

A lease is renewed every 10 s and lives for 30; a second later it is found here. Any number of replicas may reap: the
script closes each lease once.
"""

from __future__ import annotations

import asyncio
from collections import Counter

from controlplane.errors import RedisUnavailableError
from controlplane.metrics import Metrics
from controlplane.publish.expired import BATCH, ExpiredLeases, Reaped
from controlplane.publish.fence import Fences
from shared import logs

EVERY_S = 1.0

_log = logs.get("controlplane.tasks.reap")


class Reaper:
    """Looks for expired leases until it is cancelled."""

    def __init__(self, *, leases: ExpiredLeases, fences: Fences, metrics: Metrics, every_s: float = EVERY_S) -> None:
        self._leases = leases
        self._fences = fences
        self._metrics = metrics
        self._every_s = every_s

    async def run(self) -> None:
        """Reaps again and again."""
        while True:
            closed = 0
            try:
                closed = (await self.reap()).total()
            except RedisUnavailableError as fault:
                _log.debug("reaper_waits", fault=str(fault))
            if closed < BATCH:
                await asyncio.sleep(self._every_s)

    async def reap(self) -> Counter[Reaped]:
        """One round; says what became of the leases that were closed. Raises ``RedisUnavailableError``."""
        now_ms = await self._leases.now_ms()
        found = await self._leases.find(now_ms=now_ms)
        closed: Counter[Reaped] = Counter()
        if not found:
            return closed
        incarnation = (await self._fences.server()).incarnation
        for expired in found:
            fate = await self._leases.close(expired, incarnation, now_ms=now_ms)
            if fate not in (Reaped.RENEWED, Reaped.UNFENCED):
                closed[fate] += 1
                _log.warning("lease_reaped", lease_id=expired.lease_id, shard=expired.shard, fate=fate)
        for fate, count in closed.items():
            self._metrics.leases_reaped(fate, count)
        return closed

    def __repr__(self) -> str:
        return f"Reaper(every_s={self._every_s})"
