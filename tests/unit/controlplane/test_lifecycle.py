"""How the tasks of a control plane end."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from controlplane import lifecycle


class Stubborn:
    """Loses the first cancellations, as a library does that has just given up by itself."""

    def __init__(self, losses: int) -> None:
        self.losses = losses
        self.ended = False

    async def run(self) -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if not self.losses:
                    self.ended = True
                    raise
                self.losses -= 1


async def in_a_group(*works: Stubborn) -> None:
    async with asyncio.TaskGroup() as tasks:
        for work in works:
            tasks.create_task(work.run())


@pytest.mark.parametrize("losses", [0, 1, 3])
async def test_tasks_end_although_a_cancellation_got_lost_below_them(monkeypatch, losses):
    monkeypatch.setattr(lifecycle, "CANCEL_AGAIN_AFTER_S", 0.01)
    works = [Stubborn(losses), Stubborn(0)]
    bystander = asyncio.create_task(asyncio.sleep(60))
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        working = [lifecycle._spawn(tasks, in_a_group(*works))]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await lifecycle._end(working)
    assert all(work.ended for work in works)
    assert not bystander.done()
    bystander.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await bystander
