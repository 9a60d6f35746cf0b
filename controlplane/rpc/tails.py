"""The live tail of the audit log: polled, because a notification per row would serialise the commits of the ledger."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator

from controlplane.errors import InterruptedStreamError, OverloadedError
from controlplane.store import audit
from controlplane.store.audit import AuditEntry, AuditFilter, Position

MAX_TAILS = 32
POLL_S = 0.5
BATCH = 500


class Tails:
    """All tails of this process; ``end`` ends them, so that a stop need not wait for their callers."""

    def __init__(self, *, poll_s: float = POLL_S) -> None:
        self._poll_s = poll_s
        self._running = 0
        self._ending = asyncio.Event()

    def end(self) -> None:
        """Interrupts every tail."""
        self._ending.set()

    async def follow(self, wanted: AuditFilter, position: Position) -> AsyncGenerator[AuditEntry]:
        """Rows as they are recorded, from a position on, without end.

        Raises ``OverloadedError``, ``InterruptedStreamError``, ``StoreUnavailableError``, ``QueryTooLargeError``.
        """
        with self._counted():
            while not self._ending.is_set():
                today = (await audit.now()).date()
                rows, position = await audit.tail(wanted, position, today=today, size=BATCH)
                for row in rows:
                    yield row
                if len(rows) < BATCH:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._ending.wait(), self._poll_s)
            raise InterruptedStreamError("this control plane is stopping: go on with the last resume token")

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        if self._running >= MAX_TAILS:
            raise OverloadedError("too many tails")
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    def __repr__(self) -> str:
        return f"Tails(running={self._running})"
