"""What work costs beside other work of the same run: seconds alone say more about the machine than about the work."""

from __future__ import annotations

import time
from collections.abc import Callable

ROUNDS = 8


def times_as_long(work: Callable[[], object], yardstick: Callable[[], object], *, most: float) -> float:
    """How many times as long as the yardstick the work keeps the processor busy, each at its best.

    A busy machine charges a thread for what others do to its caches, so both are measured in turns; ends early once
    the ratio is not above ``most``.
    """
    work_s = yardstick_s = float("inf")
    for _ in range(ROUNDS):
        yardstick_s = min(yardstick_s, _seconds(yardstick))
        work_s = min(work_s, _seconds(work))
        if work_s <= most * yardstick_s:
            break
    return work_s / yardstick_s


def _seconds(work: Callable[[], object]) -> float:
    started_s = time.thread_time()
    work()
    return time.thread_time() - started_s
