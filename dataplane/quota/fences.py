"""Whether Redis holds rebuilt state: the fences of all shards, read every second, for the readiness check ``fence``.

Nothing is admitted on the word of this poll: the scripts compare the fence themselves, in every call. Where fences are
missing, the rebuild that follows is told what this worker knows.
"""

from __future__ import annotations

import asyncio

from dataplane.errors import CannotCheckError
from dataplane.quota.announcements import Announcements
from dataplane.quota.link import Link
from shared import keyspace, logs
from shared.keyspace import SHARDS
from shared.lifecycle import Readiness

READINESS_CHECK = "fence"
INTERVAL_S = 1.0
# While a fence is missing: traffic waits for it to come.
EAGER_INTERVAL_S = 0.1
KEYS = tuple(keyspace.fence(shard) for shard in SHARDS)

log = logs.get(__name__)


def all_hold(link: Link, fences: list[bytes | None]) -> bool:
    """Whether the values of ``KEYS`` are valid for the servers they were read from. Raises ``CannotCheckError``."""
    return all(link.holds(shard, fence) for shard, fence in zip(SHARDS, fences, strict=True))


class FenceWatch:
    """Reports whether every shard has a valid fence."""

    def __init__(self, *, link: Link, readiness: Readiness, announcements: Announcements) -> None:
        self._link = link
        self._announcements = announcements
        self._readiness = readiness
        self._held: bool | None = None

    async def run(self) -> None:
        """Looks until it is cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(INTERVAL_S if self._held else EAGER_INTERVAL_S)

    async def look(self) -> None:
        """Looks once."""
        holds = False
        try:
            fences = await self._link.get(*KEYS)
            missing = [shard for shard, fence in zip(SHARDS, fences, strict=True) if not self._link.holds(shard, fence)]
            holds = not missing
            if missing:
                await self._announcements.tell(missing)
            else:
                await self._announcements.look_at_ledger()
        except CannotCheckError as fault:
            log.debug("fence_not_read", reason=fault.detail)
        if holds != self._held:
            log.info("fence_checked", holds=holds)
        self._held = holds
        self._readiness.report(READINESS_CHECK, holds=holds)

    def __repr__(self) -> str:
        return f"FenceWatch(holds={self._held})"
