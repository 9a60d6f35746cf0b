"""One timer for all waits of a request."""

import asyncio

import pytest
import uvloop

from dataplane.errors import ClientClosedError
from dataplane.interrupt import Interrupt
from dataplane.upstream.deadline import DeadlinePassedError, ReadDeadline


async def test_a_wait_that_takes_too_long_is_interrupted():
    deadline = ReadDeadline(total_s=10)
    with pytest.raises(DeadlinePassedError, match="pause"), deadline.until(deadline.after(0.02)):
        await asyncio.Event().wait()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    deadline.close()


async def test_the_whole_time_bounds_every_wait():
    deadline = ReadDeadline(total_s=0.02)
    with pytest.raises(DeadlinePassedError, match="total"), deadline.until(deadline.after(10)):
        await asyncio.Event().wait()
    with pytest.raises(DeadlinePassedError, match="total"):
        deadline.after(10)
    deadline.close()


async def test_a_deadline_moves_with_each_wait():
    deadline = ReadDeadline(total_s=10)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    while loop.time() - began_s < 0.75:
        with deadline.until(deadline.after(0.5)):
            await asyncio.sleep(0.01)
    with pytest.raises(DeadlinePassedError), deadline.until(deadline.after(0.02)):
        await asyncio.Event().wait()
    deadline.close()


async def test_a_later_wait_may_be_shorter():
    deadline = ReadDeadline(total_s=100)
    with deadline.until(deadline.after(50)):
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        with pytest.raises(DeadlinePassedError), deadline.until(deadline.after(0.01)):
            await asyncio.Event().wait()
    deadline.close()


async def test_other_waits_of_the_task_are_never_interrupted():
    deadline = ReadDeadline(total_s=0.03)
    with deadline.until(deadline.after(0.01)):
        await asyncio.sleep(0)
    await asyncio.sleep(0.06)
    with pytest.raises(DeadlinePassedError):
        deadline.after(1)
    deadline.close()


async def test_somebody_elses_cancellation_passes_through():
    deadline = ReadDeadline(total_s=10)

    async def wait() -> None:
        with deadline.until(deadline.after(10)):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    deadline.close()


async def test_an_interrupt_at_the_same_moment_wins():
    interrupt = Interrupt()
    deadline = ReadDeadline(total_s=10)
    loop = asyncio.get_running_loop()
    due_s = deadline.after(0.02)

    def both():
        interrupt.fire(ClientClosedError())

    loop.call_at(due_s, both)
    with pytest.raises(ClientClosedError), interrupt, deadline.until(due_s):
        await asyncio.Event().wait()
    deadline.close()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_what_the_wait_raises_passes_through():
    deadline = ReadDeadline(total_s=10)

    async def fails() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError), deadline.until(deadline.after(1)):
        await fails()
    deadline.close()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_deadline_that_is_over_already_may_be_set_again(run):
    async def waits() -> None:
        deadline = ReadDeadline(total_s=10)
        over_s = asyncio.get_running_loop().time() - 1
        for _ in range(2):
            # Nothing has to be waited for, so nothing is late.
            with deadline.until(over_s):
                pass
        with pytest.raises(DeadlinePassedError), deadline.until(over_s):
            await asyncio.Event().wait()
        deadline.close()

    run(waits())
