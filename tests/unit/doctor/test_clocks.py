"""Clocks that are apart are found, whichever way."""

from __future__ import annotations

import pytest

from controlplane.doctor import Status
from controlplane.doctor.clocks import compared
from tests.fakes.manual_clock import ManualClock


@pytest.mark.parametrize(
    ("ahead_s", "status", "word"),
    [
        (0.0, Status.OK, "apart"),
        (1.9, Status.OK, "apart"),
        (2.1, Status.WARNING, "ahead of"),
        (-3600.0, Status.WARNING, "behind"),
    ],
)
async def test_a_clock_is_judged_by_how_far_it_is_from_ours(ahead_s, status, word):
    clock = ManualClock()

    async def theirs() -> float:
        return clock.unix_s() + ahead_s

    (found,) = await compared("redis", theirs, clock)

    assert (found.name, found.status) == ("clocks.redis", status)
    assert word in found.seen


async def test_an_answer_that_took_long_is_no_difference_of_clocks():
    clock = ManualClock()

    async def slowly() -> float:
        clock.now_s += 8
        return clock.unix_s()

    assert (await compared("postgres", slowly, clock))[0].status is Status.OK
