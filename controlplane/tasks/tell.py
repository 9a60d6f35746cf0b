"""Tells the watchers here of changes that Redis does not have yet, whichever control plane they were made on.

While Redis is away nothing goes through the stream, so a revocation would reach only the workers of the control plane
that was asked. But it is in the outbox, and every control plane reads that.
"""

from __future__ import annotations

import asyncio
import datetime as dt

from controlplane.errors import NotFoundError, StoreUnavailableError
from controlplane.publish.publisher import StatePublisher
from controlplane.store import outbox
from shared import logs

POLL_S = 0.25
# What waits no longer than this is most likely being published right now.
SINCE = dt.timedelta(milliseconds=500)
LIMIT = 500

_log = logs.get("controlplane.tasks.tell")


class WaitingChanges:
    """Looks until cancelled; tells of each row once."""

    def __init__(self, *, publisher: StatePublisher, poll_s: float = POLL_S) -> None:
        self._publisher = publisher
        self._poll_s = poll_s
        self._told: set[int] = set()

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            try:
                await self.look()
            except StoreUnavailableError as fault:
                _log.debug("waiting_changes_not_read", fault=str(fault))
            await asyncio.sleep(self._poll_s)

    async def look(self) -> int:
        """Looks once; how many changes were told. Raises ``StoreUnavailableError``."""
        waiting = await outbox.waiting(since=SINCE, limit=LIMIT)
        untold = [change for change in waiting if change.id not in self._told]
        self._told &= {change.id for change in waiting}
        for change in untold:
            try:
                await self._publisher.tell_waiting(change)
            except NotFoundError:
                # Deleted by hand in Postgres: there is nothing to tell.
                _log.debug("waiting_change_without_subject", outbox=change.id)
            self._told.add(change.id)
        return len(untold)

    def __repr__(self) -> str:
        return f"WaitingChanges(told={len(self._told)})"
