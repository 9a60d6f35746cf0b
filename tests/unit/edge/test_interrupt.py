"""Stopping a request from outside, with a reason."""

import asyncio
import contextlib

import pytest

from dataplane.errors import ClientClosedError, LeaseLostError
from dataplane.interrupt import Interrupt


def pending_cancellations() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


async def test_the_reason_comes_out_of_the_block():
    interrupt = Interrupt()
    asyncio.get_running_loop().call_soon(interrupt.fire, ClientClosedError("gone"))
    with pytest.raises(ClientClosedError), interrupt:
        await asyncio.sleep(10)
    assert not pending_cancellations()


async def test_the_first_reason_wins():
    interrupt = Interrupt()

    def fire_twice() -> None:
        interrupt.fire(LeaseLostError("cut"))
        interrupt.fire(ClientClosedError("gone"))

    asyncio.get_running_loop().call_soon(fire_twice)
    with pytest.raises(LeaseLostError), interrupt:
        await asyncio.sleep(10)
    assert isinstance(interrupt.reason, LeaseLostError)


async def test_after_the_block_nothing_happens():
    interrupt = Interrupt()
    with interrupt:
        await asyncio.sleep(0)
    interrupt.fire(ClientClosedError("late"))
    await asyncio.sleep(0)
    assert interrupt.reason is None


async def test_somebody_elses_cancellation_stays_one():
    interrupt = Interrupt()

    async def request() -> None:
        with interrupt:
            await asyncio.sleep(10)

    task = asyncio.create_task(request())
    await asyncio.sleep(0)
    interrupt.fire(ClientClosedError("gone"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_a_stop_that_came_too_late_to_matter_leaves_no_trace():
    interrupt = Interrupt()
    asyncio.get_running_loop().call_soon(interrupt.fire, ClientClosedError("gone"))
    with interrupt, contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(10)
    assert not pending_cancellations()
    await asyncio.sleep(0)
