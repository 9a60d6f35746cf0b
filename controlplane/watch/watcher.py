"""The queue between the hub and one stream."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from controlplane.core.changes import Change

CAPACITY = 1024


class Watcher:
    """Changes that wait to be sent to one worker. A full queue is emptied for good: the worker must resync."""

    def __init__(self, *, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._waiting: deque[Change] = deque()
        self._woken = asyncio.Event()
        # Why the stream must begin anew; empty while it need not.
        self.resync_reason = ""

    def offer(self, change: Change) -> None:
        """Adds a change; never waits."""
        if self.resync_reason:
            return
        if len(self._waiting) >= self._capacity:
            self.resync("too many changes wait: the stream is read too slowly")
            return
        self._waiting.append(change)
        self._woken.set()

    def resync(self, reason: str) -> None:
        """Has the stream end; what waits is not sent any more."""
        self.resync_reason = self.resync_reason or reason
        self._waiting.clear()
        self._woken.set()

    async def take(self, *, within_s: float) -> Sequence[Change]:
        """What waits, as soon as there is something; nothing after ``within_s``, or when the stream must end."""
        try:
            async with asyncio.timeout(max(0.0, within_s)):
                await self._woken.wait()
        except TimeoutError:
            return ()
        return self.take_waiting()

    def take_waiting(self) -> Sequence[Change]:
        """What waits now."""
        taken = tuple(self._waiting)
        self._waiting.clear()
        if not self.resync_reason:
            self._woken.clear()
        return taken

    def __repr__(self) -> str:
        return f"Watcher({len(self._waiting)}, resync={self.resync_reason!r})"
