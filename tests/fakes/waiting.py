"""Waiting for something to become true, with a deadline and without fixed sleeps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(holds: Callable[[], object], *, timeout_s: float = 10.0) -> None:
    """Returns when ``holds()`` is true; fails the test when that takes too long."""
    async with asyncio.timeout(timeout_s):
        while not holds():
            await asyncio.sleep(0.002)
