"""A rebuild that has to wait says why, once for each reason: meanwhile everything is denied."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from controlplane.errors import RedisUnavailableError, StoreUnavailableError
from controlplane.metrics import Metrics
from controlplane.tasks.rebuild import FenceKeeper
from tests.fakes.manual_clock import ManualClock


class Faults:
    """Fences that cannot be read: each look fails with the next of these, and the last look waits for ever."""

    def __init__(self, *faults: Exception) -> None:
        self._faults = list(faults)
        self.ended = asyncio.Event()

    async def server(self) -> Any:
        if not self._faults:
            self.ended.set()
            await asyncio.Event().wait()
        raise self._faults.pop(0)


async def test_each_reason_is_told_once():
    away, refused = StoreUnavailableError("Postgres: away"), RedisUnavailableError("Redis: refused")
    fences: Any = Faults(away, away, away, refused, refused, away)
    nothing: Any = None
    keeper = FenceKeeper(
        fences=fences,
        functions=nothing,
        state=nothing,
        counters=nothing,
        publisher=nothing,
        keys=nothing,
        tenants=nothing,
        clock=ManualClock(0),
        metrics=Metrics(),
        poll_s=0,
    )
    with structlog.testing.capture_logs() as lines:
        task = asyncio.create_task(keeper.run())
        await asyncio.wait_for(fences.ended.wait(), 5)
        task.cancel()
    assert [line["fault"] for line in lines] == ["Postgres: away", "Redis: refused", "Postgres: away"]
    assert {line["log_level"] for line in lines} == {"warning"}
