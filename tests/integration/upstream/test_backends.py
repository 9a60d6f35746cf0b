"""Connection caps and circuit breakers over real sockets."""

import asyncio
import contextlib
import os
import resource
from collections.abc import Iterator

import pytest

from dataplane.errors import UpstreamError
from dataplane.upstream.breaker import FAILURES, OPEN_S
from deploy.mock_ollama import MockOllama, faults
from deploy.mock_ollama import bad_content as bad
from tests.fakes.manual_clock import ManualClock
from tests.fakes.waiting import until
from tests.integration.upstream.gateway import LLAMA, Gateway, gateway

HARD = faults.ResetBeforeHeaders()
SOFT = bad.Status(status=500)


async def fails(one: Gateway, times: int = 1, *, tenant: str = "t") -> None:
    for _ in range(times):
        with pytest.raises(UpstreamError):
            await one.text(tenant=tenant)


async def test_connections_to_a_backend_are_capped_and_the_others_wait():
    async with MockOllama() as mock, gateway(mock, max_connections=3) as one:
        mock.set_settings(record_delay_ms=2)
        await asyncio.gather(*[one.text() for _ in range(12)])
        stats = mock.stats()
        assert stats["max_in_flight"] == 3
        assert stats["connections_open"] <= 3


async def test_who_waits_too_long_for_a_connection_goes_elsewhere():
    async with MockOllama() as full, MockOllama() as free, gateway(full, free, connect_s=0.1, max_connections=1) as one:
        full.script(faults.Hang())
        holding = asyncio.create_task(one.text())
        await until(lambda: full.stats()["in_flight"] == 1)
        assert await one.text()
        assert len(free.requests) == 1
        assert one.backends.available(one.models.candidates(LLAMA)[0])
        holding.cancel()
        await asyncio.wait([holding])


async def test_five_failures_open_the_breaker_and_one_probe_closes_it():
    clock = ManualClock()
    async with MockOllama() as mock, gateway(mock, clock=clock) as one:
        mock.script(HARD, times=FAILURES)
        await fails(one, FAILURES)
        assert len(mock.requests) == FAILURES
        with pytest.raises(UpstreamError) as caught:
            await one.text()
        assert caught.value.retry_after_s == OPEN_S
        clock.now_s += OPEN_S - 1
        await fails(one, 3)
        assert len(mock.requests) == FAILURES
        clock.now_s += 1
        mock.script(faults.Slow(before_headers_ms=50))
        results = await asyncio.gather(*[one.text() for _ in range(5)], return_exceptions=True)
        assert sum(isinstance(result, str) for result in results) == 1
        assert len(mock.requests) == FAILURES + 1
        assert await one.text()


async def test_a_failed_probe_opens_the_breaker_again():
    clock = ManualClock()
    async with MockOllama() as mock, gateway(mock, clock=clock) as one:
        mock.script(HARD, times=None)
        await fails(one, FAILURES)
        clock.now_s += OPEN_S
        await fails(one, 3)
        assert len(mock.requests) == FAILURES + 1


async def test_breakers_are_per_backend():
    async with MockOllama() as bad_one, MockOllama() as good, gateway(bad_one, good) as one:
        bad_one.script(HARD, times=None)
        for _ in range(FAILURES + 5):
            assert await one.text()
        assert len(bad_one.requests) == FAILURES
        assert len(good.requests) == FAILURES + 5


@pytest.mark.parametrize("fault", [SOFT, bad.InvalidJSON(), bad.Empty200(), bad.ErrorLineAfterRecords(records=2)])
async def test_poison_of_one_tenant_shuts_nobody_out(fault):
    async with MockOllama() as mock, gateway(mock) as one:
        mock.script(fault, times=20)
        await fails(one, 20, tenant="poisonous")
        assert await one.text(tenant="innocent")


async def test_bad_replies_to_two_tenants_open_the_breaker():
    async with MockOllama() as mock, gateway(mock) as one:
        mock.script(SOFT, times=None)
        await fails(one, FAILURES - 1, tenant="a")
        await fails(one, 3, tenant="b")
        assert len(mock.requests) == FAILURES


async def test_deadlines_refusals_and_cancels_do_not_open_the_breaker():
    async with MockOllama() as mock, gateway(mock, first_record_s=0.02, idle_s=0.02) as one:
        mock.script(faults.Hang(), times=FAILURES)
        await fails(one, FAILURES)
        mock.script(faults.Hang(where="after_records"), times=FAILURES)
        await fails(one, FAILURES)
        mock.script(bad.Status(status=403), times=FAILURES)
        await fails(one, FAILURES)
        mock.script(faults.Hang(), times=FAILURES)
        for _ in range(FAILURES):
            task = asyncio.create_task(one.text())
            await until(lambda: one.backends.in_flight("a") == 1)
            task.cancel()
            await asyncio.wait([task])
        mock.clear_scripts()
        assert await one.text()


async def test_a_probe_that_a_client_leaves_makes_room_for_the_next():
    clock = ManualClock()
    async with MockOllama() as mock, gateway(mock, clock=clock) as one:
        mock.script(HARD, times=FAILURES)
        await fails(one, FAILURES)
        clock.now_s += OPEN_S
        mock.script(faults.Hang())
        task = asyncio.create_task(one.text())
        await until(lambda: mock.stats()["in_flight"] == 1)
        task.cancel()
        await asyncio.wait([task])
        assert await one.text()


async def test_an_unreachable_backend_counts_as_failing():
    async with MockOllama() as good, gateway("http://127.0.0.1:1", good) as one:
        for _ in range(FAILURES):
            assert await one.text()
        assert not one.backends.available(one.models.candidates(LLAMA)[0])


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """All numbers below the limit are taken."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_our_own_want_of_descriptors_opens_no_breaker():
    async with MockOllama() as mock, gateway(mock) as one:
        with no_descriptors():
            await fails(one, FAILURES + 1)
        assert mock.requests == []
        assert await one.text()
