"""A link that runs for the length of a block."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from dataplane.quota.link import Link
from shared.redaction import Secret
from tests.fakes.waiting import until


@contextlib.asynccontextmanager
async def running_link(url: str, *, timeout_s: float = 0.15, trusted: bool = True) -> AsyncIterator[Link]:
    """A link; with ``trusted`` the block begins when something may be decided on it."""
    link = Link(url=Secret(url), timeout_s=timeout_s)
    task = asyncio.create_task(link.run())
    try:
        if trusted:
            await until(lambda: link.is_trusted)
        yield link
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
