"""Stopping a request from outside, with a reason."""

import asyncio
import contextlib
from collections.abc import Coroutine

import pytest

from dataplane.errors import ClientClosedError, LeaseLostError
from dataplane.interrupt import Interrupt


def pending_cancellations() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


async def stays_cancelled(request: Coroutine[None, None, None], interrupt: Interrupt) -> None:
    """Interrupts the request and cancels its task at the same moment."""
    task = asyncio.create_task(request)
    await asyncio.sleep(0)
    interrupt.fire(ClientClosedError("gone"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


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


async def test_a_reason_of_its_kind_surfaces_where_it_is_asked_for():
    interrupt = Interrupt()
    with interrupt:
        interrupt.fire(LeaseLostError("cut"))
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            interrupt.surface(ClientClosedError)
            with pytest.raises(LeaseLostError):
                interrupt.surface(LeaseLostError)
        # The request goes on, and may be ended for another reason.
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(interrupt.fire, ClientClosedError("gone"))
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(10)
        interrupt_reason = interrupt.reason
    assert isinstance(interrupt_reason, ClientClosedError)
    assert not pending_cancellations()


async def test_somebody_elses_cancellation_does_not_surface():
    interrupt = Interrupt()

    async def request() -> None:
        with interrupt:
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                interrupt.surface(ClientClosedError)
                raise

    await stays_cancelled(request(), interrupt)


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

    await stays_cancelled(request(), interrupt)


async def test_a_stop_that_came_too_late_to_matter_leaves_no_trace():
    interrupt = Interrupt()
    asyncio.get_running_loop().call_soon(interrupt.fire, ClientClosedError("gone"))
    with interrupt, contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(10)
    assert not pending_cancellations()
    await asyncio.sleep(0)
