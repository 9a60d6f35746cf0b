"""Checks run at once, and nothing that one of them does ends another."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import NoPermissionError

from controlplane.doctor.checks import Check, run
from controlplane.doctor.findings import Finding, Report, Status, ok
from controlplane.errors import RedisUnavailableError

FINDINGS = st.lists(
    st.builds(Finding, name=st.just("n"), status=st.sampled_from(Status), seen=st.just("s")), max_size=9
)


def raising(fault: BaseException) -> Check:
    async def look() -> list[Finding]:
        raise fault

    return Check(name="broken", look=look)


async def test_a_check_that_raises_is_a_finding_without_its_text():
    (found,) = await run([raising(ValueError("pass-word"))], timeout_s=5)

    assert (found.name, found.status) == ("broken", Status.FAILED)
    assert "ValueError" in found.seen
    assert "pass-word" not in repr(found)


async def test_a_server_that_is_away_is_a_finding_with_its_reason():
    (found,) = await run([raising(RedisUnavailableError("Redis: ConnectionError"))], timeout_s=5)

    assert (found.status, found.seen) == (Status.FAILED, "Redis: ConnectionError")


async def test_what_this_user_of_redis_may_not_see_is_skipped():
    fault = RedisUnavailableError("Redis: NoPermissionError")
    fault.__cause__ = NoPermissionError()

    (found,) = await run([raising(fault)], timeout_s=5)

    assert found.status is Status.SKIPPED


async def test_a_check_that_never_ends_is_a_finding_after_its_deadline_and_holds_up_nobody():
    async def forever() -> list[Finding]:
        await asyncio.Event().wait()
        return []

    async def at_once() -> list[Finding]:
        return [ok("fast", "done")]

    hung = [Check(name=f"hung-{number}", look=forever) for number in range(20)]
    async with asyncio.timeout(5):
        found = await run([*hung, Check(name="fast", look=at_once)], timeout_s=0.3)

    assert [finding.status for finding in found] == [Status.FAILED] * 20 + [Status.OK]
    assert "0.3 s" in found[0].seen


@given(FINDINGS)
def test_a_report_is_as_bad_as_its_worst_finding_and_what_was_skipped_says_nothing(findings):
    found = {finding.status for finding in findings}

    expected = next((status for status in (Status.FAILED, Status.WARNING) if status in found), Status.OK)

    report = Report(findings=tuple(findings))
    assert report.status is expected
    assert sum(report.count(status) for status in Status) == len(findings)


async def test_an_interrupted_run_ends():
    with pytest.raises(asyncio.CancelledError):
        await run([raising(asyncio.CancelledError())], timeout_s=5)
