"""How the threads of a worker are scheduled."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable

import pytest

from dataplane import process

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="scheduling policies per thread are Linux'")


def in_a_loop_of_its_own(policy: int | None = None) -> list[int]:
    """How a loop's thread of this policy is scheduled at once and afterwards, and a thread that it started at once."""
    seen: list[int] = []
    over = threading.Event()

    def server() -> None:
        over.wait(10)
        seen.append(os.sched_getscheduler(0))

    async def serve() -> None:
        process.let_the_loop_finish()
        seen.append(os.sched_getscheduler(0))
        started = threading.Thread(target=server)
        started.start()
        await asyncio.sleep(2 * process.SERVER_STARTED_S)
        seen.append(os.sched_getscheduler(0))
        over.set()
        await asyncio.to_thread(started.join)

    def loop() -> None:
        if policy is not None:
            os.sched_setscheduler(0, policy, os.sched_param(0))
        asyncio.run(serve())

    run_in_a_thread(loop)
    return seen


def run_in_a_thread(function: Callable[[], None]) -> None:
    """A policy belongs to a thread, and none may be left to the tests that follow."""
    thread = threading.Thread(target=function)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(process, "SERVER_STARTED_S", 0.2)


def test_threads_that_are_started_for_the_loop_do_not_preempt_it_and_the_loop_is_itself_again():
    assert in_a_loop_of_its_own(os.SCHED_OTHER) == [os.SCHED_BATCH, os.SCHED_OTHER, os.SCHED_BATCH]


def test_a_policy_that_somebody_chose_stays():
    assert in_a_loop_of_its_own(os.SCHED_IDLE) == [os.SCHED_IDLE] * 3


def test_a_kernel_that_refuses_it_is_no_fault(monkeypatch):
    def refused(*_: object) -> None:
        raise PermissionError

    with monkeypatch.context() as patched:
        patched.setattr(os, "sched_setscheduler", refused)
        assert in_a_loop_of_its_own() == [os.SCHED_OTHER] * 3
