"""A link that runs for the length of a block."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from dataplane.quota.link import Link
from shared.lifecycle import Readiness
from shared.redaction import Secret
from tests.fakes.waiting import until

# Longer than a busy machine takes for a hundred admissions at once. What waits for a deadline has a short one.
PATIENT_S = 3.0
IMPATIENT_S = 0.5


@contextlib.asynccontextmanager
async def running_link(
    url: str, *, timeout_s: float = PATIENT_S, trusted: bool = True, readiness: Readiness | None = None
) -> AsyncIterator[Link]:
    """A link; with ``trusted`` the block begins when something may be decided on it."""
    link = Link(url=Secret(url), timeout_s=timeout_s, readiness=readiness)
    task = asyncio.create_task(link.run())
    try:
        if trusted:
            await until(lambda: link.is_trusted)
        yield link
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
