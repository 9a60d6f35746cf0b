"""Moves counted authentication failures into the audit log, each once. Losing some to a flood is allowed, delay too."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from controlplane.core.usage import AnonymousRow, DeadLetter, UsageEventError, anonymous_row_of, dead_letter
from controlplane.errors import RedisUnavailableError, StoreUnavailableError
from controlplane.metrics import Metrics
from controlplane.publish.anonymous_stream import AnonymousEntry, AnonymousStream
from controlplane.store import ledger
from shared import logs

EVERY_S = 1.0
BATCH = 500
CLAIM_IDLE_S = 30.0
CONSUMER_IDLE_S = 3600.0

_log = logs.get("controlplane.tasks.drain_anonymous")


class AnonymousDrain:
    """Drains until cancelled. Any number of replicas may share the work."""

    def __init__(
        self,
        *,
        stream: AnonymousStream,
        metrics: Metrics,
        every_s: float = EVERY_S,
        claim_idle_s: float = CLAIM_IDLE_S,
    ) -> None:
        self._stream = stream
        self._metrics = metrics
        self._every_s = every_s
        self._claim_idle_s = claim_idle_s

    async def run(self) -> None:
        """Drains until cancelled."""
        while True:
            try:
                count = await self.drain()
            except (RedisUnavailableError, StoreUnavailableError) as fault:
                # What was read stays ours and is claimed when Postgres answers again.
                _log.debug("anonymous_failures_wait", fault=str(fault))
                count = 0
            if count < BATCH:
                await asyncio.sleep(self._every_s)

    async def drain(self) -> int:
        """One round; how many entries. Raises ``RedisUnavailableError``, ``StoreUnavailableError``."""
        entries = await self._stream.claim(idle_s=self._claim_idle_s, count=BATCH)
        entries += await self._stream.read(count=BATCH)
        if entries:
            rows, letters = _sorted_out(entries)
            await ledger.record_anonymous(rows, letters)
            await self._stream.acknowledge([entry.entry_id for entry in entries])
            self._metrics.anonymous_recorded(sum(row.occurrences for row in rows), buried=len(letters))
        await self._stream.forget_consumers(idle_s=CONSUMER_IDLE_S)
        return len(entries)

    def __repr__(self) -> str:
        return f"AnonymousDrain({self._stream!r})"


def _sorted_out(entries: Sequence[AnonymousEntry]) -> tuple[list[AnonymousRow], list[DeadLetter]]:
    rows: list[AnonymousRow] = []
    letters: list[DeadLetter] = []
    for entry in entries:
        try:
            if entry.raw is None:
                raise UsageEventError("no record in it")
            rows.append(anonymous_row_of(entry.entry_id, entry.raw))
        except UsageEventError as fault:
            letters.append(dead_letter("anonymous", entry.entry_id, entry.raw, str(fault)))
    return rows, letters
