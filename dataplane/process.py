"""What a worker asks of the interpreter and of the kernel, once, for the whole process."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import signal
import sys

# New objects between two looks for cycles of them; requests leave none, so there is little to find (some 10 MB).
YOUNG_OBJECTS = 50_000
# The server starts its threads right after the application; a second is long beside that.
SERVER_STARTED_S = 1.0
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """A worker whose supervisor was killed must not go on serving a port that somebody else will bind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def spare_the_collector() -> None:
    """What lives as long as the worker is never looked through again, and what a request leaves only now and then."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)


def let_the_loop_finish() -> None:
    """Whom the event loop wakes does not take its core at once, but when it next waits: for the threads of the server.

    They inherit how this thread is scheduled while it starts them, so it is ``SCHED_BATCH`` until they are there, and
    itself again afterwards: what the loop waits for preempts others as before (sched(7)). To be called in the loop, as
    the last thing before the server starts. A policy that somebody chose for the worker stays, and so does the usual
    one where the kernel refuses another.
    """
    if sys.platform == "linux" and os.sched_getscheduler(0) == os.SCHED_OTHER and _scheduled(os.SCHED_BATCH):
        asyncio.get_running_loop().call_later(SERVER_STARTED_S, _scheduled, os.SCHED_OTHER)


def let_the_server_go_first() -> None:
    """Those threads run now, before what is left to do of this turn of the loop.

    For a reply that has just been handed over while nothing else waits: they would get the core when the loop waits,
    after the request was put away. While others wait this costs them two switches of threads.
    """
    os.sched_yield()


def _scheduled(policy: int) -> bool:
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, policy, os.sched_param(0))
        return True
    return False
