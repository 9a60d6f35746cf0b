"""Leases of running requests stay alive, and their loss ends the request."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from dataplane.errors import LeaseLostError
from dataplane.interrupt import Interrupt
from dataplane.quota.calls import Calls
from dataplane.quota.leases import RedisLeases
from dataplane.quota.link import Link
from dataplane.quota.refused import RefusedVersions
from dataplane.quota.renewal import CUT_AFTER_S, RENEW_AFTER_S, Renewal
from dataplane.quota.settlements import Settlements
from dataplane.values import Lease, Principal, RequestId
from shared import keyspace
from tests.fakes.manual_clock import ManualClock
from tests.fakes.published_state import PublishedState
from tests.integration.quota.caller import CRASHED, DEMAND

pytestmark = pytest.mark.redis


class Running:
    """One request that runs until it is interrupted."""

    def __init__(self, lease: Lease, principal: Principal, renewal: Renewal) -> None:
        self.lease = lease
        self.interrupt = Interrupt()
        renewal.hold(lease, principal, self.interrupt)
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        with self.interrupt:
            await asyncio.Event().wait()

    @property
    def is_cut(self) -> bool:
        return isinstance(self.interrupt.reason, LeaseLostError)


class Worker:
    def __init__(self, state: PublishedState, link: Link) -> None:
        calls = Calls(backlog_max_events=16_000)
        self.state = state
        self.clock = ManualClock()
        self.renewal = Renewal(link=link, refused=RefusedVersions(), clock=self.clock)
        settlements = Settlements(link=link, calls=calls, capacity=10)
        self.leases = RedisLeases(
            link=link, calls=calls, buffer=settlements, refused=RefusedVersions(), clock=self.clock
        )
        self.requests: list[Running] = []

    async def start(self, principal: Principal) -> Running:
        lease = await self.leases.acquire(principal, RequestId(uuid.uuid4().hex), DEMAND, CRASHED)
        request = Running(lease, principal, self.renewal)
        self.requests.append(request)
        await asyncio.sleep(0)
        return request

    async def tick(self, seconds: float) -> None:
        self.clock.now_s += seconds
        await self.renewal.tick()

    def age(self, request: Running, milliseconds: int) -> None:
        """Moves the expiry of a lease in Redis."""
        name = keyspace.expiry(request.lease.shard)
        score = self.state.client.zscore(name, request.lease.lease_id)
        self.state.client.zadd(name, {request.lease.lease_id: score + milliseconds})

    def expiry(self, request: Running) -> float:
        return float(self.state.client.zscore(keyspace.expiry(request.lease.shard), request.lease.lease_id))

    async def stop(self) -> None:
        for request in self.requests:
            request.task.cancel()
        await asyncio.gather(*(request.task for request in self.requests), return_exceptions=True)


@pytest.fixture
async def worker(state: PublishedState, link: Link):
    worker = Worker(state, link)
    yield worker
    await worker.stop()


async def test_lease_is_renewed_when_it_is_ten_seconds_old(worker: Worker):
    request = await worker.start(worker.state.principal())
    worker.age(request, -5_000)
    before = worker.expiry(request)
    await worker.tick(RENEW_AFTER_S - 1)
    assert worker.expiry(request) == before
    await worker.tick(1)
    assert worker.expiry(request) > before + 4_000
    assert worker.renewal.counts.renewed == 1
    assert not request.is_cut


async def test_revoked_key_cuts_its_streams_and_no_others(worker: Worker):
    principal, other = worker.state.principal(), worker.state.principal()
    revoked, running = await worker.start(principal), await worker.start(other)
    worker.state.live(principal, key=-2)
    await worker.tick(RENEW_AFTER_S)
    assert (revoked.is_cut, running.is_cut) == (True, False)
    with pytest.raises(LeaseLostError):
        await revoked.task


async def test_expired_lease_is_cut_and_not_revived(worker: Worker):
    request = await worker.start(worker.state.principal())
    worker.age(request, -40_000)
    before = worker.expiry(request)
    await worker.tick(RENEW_AFTER_S)
    assert request.is_cut
    assert worker.expiry(request) == before


async def test_stream_is_cut_before_its_lease_can_have_expired(worker: Worker):
    request = await worker.start(worker.state.principal())
    await worker.tick(RENEW_AFTER_S)
    worker.state.client.delete(keyspace.fence(request.lease.shard))
    await worker.tick(CUT_AFTER_S - 2)
    assert not request.is_cut
    await worker.tick(1)
    assert request.is_cut


async def test_renewal_is_tried_again_after_it_failed(worker: Worker):
    request = await worker.start(worker.state.principal())
    worker.state.client.delete(keyspace.fence(request.lease.shard))
    await worker.tick(RENEW_AFTER_S)
    worker.state.stamp(epoch=2)
    await worker.tick(1)
    await worker.tick(CUT_AFTER_S - 2)
    assert not request.is_cut


async def test_released_lease_is_not_renewed(worker: Worker):
    request = await worker.start(worker.state.principal())
    worker.renewal.release(request.lease)
    worker.renewal.release(request.lease)
    await worker.tick(CUT_AFTER_S + 10)
    assert worker.renewal.counts.renewed == 0
    assert not request.is_cut


async def test_many_leases_are_renewed_in_batches(worker: Worker):
    principal = worker.state.principal(concurrent=None, tenant_concurrent=None)
    for _ in range(450):
        await worker.start(principal)
    await worker.tick(RENEW_AFTER_S)
    assert worker.renewal.counts.renewed == 450
