"""Measures what waits for the ledger, and tells admission to deny in shards where that takes too much memory.

How many events wait, the admission script counts itself. How many bytes they have, only this task asks, once a second:
a stream with prompts may be a thousand times heavier than one without.
"""

from __future__ import annotations

import asyncio

from controlplane.errors import RedisUnavailableError
from controlplane.metrics import Metrics
from controlplane.publish.usage_stream import BacklogState
from shared import logs
from shared.keyspace import SHARD_COUNT, Shard

EVERY_S = 1.0

_log = logs.get("controlplane.tasks.backlog")


class BacklogWatch:
    """Measures and flags until cancelled. Any number of replicas may: all come to the same.

    ``max_bytes`` is for all shards together; each may have an even part.
    """

    def __init__(self, *, state: BacklogState, max_bytes: int, metrics: Metrics, every_s: float = EVERY_S) -> None:
        self._state = state
        self._max_shard_bytes = max(1, max_bytes // SHARD_COUNT)
        self._metrics = metrics
        self._every_s = every_s
        self._denying: frozenset[Shard] = frozenset()

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            try:
                await self.look()
            except RedisUnavailableError as fault:
                _log.debug("backlog_not_measured", fault=str(fault))
            await asyncio.sleep(self._every_s)

    async def look(self) -> None:
        """Measures every stream and sets or removes what admission goes by. Raises ``RedisUnavailableError``."""
        sizes = await self._state.measure()
        over = frozenset(shard for shard, size in sizes.items() if size.size_bytes > self._max_shard_bytes)
        await self._state.deny(over)
        measured = {str(shard): (size.events, size.size_bytes) for shard, size in sizes.items()}
        self._metrics.backlog_measured(measured, denying=len(over))
        if over != self._denying:
            _log.warning("backlog_denial_changed", shards=sorted(over))
            self._denying = over

    def __repr__(self) -> str:
        return f"BacklogWatch(denying={len(self._denying)})"
