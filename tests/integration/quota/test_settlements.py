"""Settlements reach the stream once, whatever happens to Redis meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dataplane.quota.calls import Calls
from dataplane.quota.leases import RedisLeases
from dataplane.quota.refused import RefusedVersions
from dataplane.quota.settlements import Settlements
from dataplane.values import RequestId
from deploy.local.redis import Redis
from shared import keyspace
from shared.clock import SystemClock
from tests.fakes.published_state import PublishedState
from tests.fakes.redis_link import running_link
from tests.fakes.waiting import until

pytestmark = pytest.mark.redis


@contextlib.asynccontextmanager
async def running(settlements: Settlements) -> AsyncIterator[Settlements]:
    task = asyncio.create_task(settlements.run())
    try:
        yield settlements
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def new_id() -> RequestId:
    return RequestId(uuid.uuid4().hex)


async def test_settlement_returns_the_slots_and_appends_its_event(
    leases: RedisLeases, settlements: Settlements, state: PublishedState
):
    principal = state.principal()
    async with running(settlements):
        for number in range(20):
            lease = await leases.acquire(principal, new_id())
            settlements.settle(lease, principal, b"%d" % number)
        assert await settlements.drained(2.0) == 0
    assert sorted(state.usage(principal)) == sorted(b"%d" % number for number in range(20))
    assert state.slots(principal) == (0, 0, 0)
    assert settlements.counts.acknowledged == 20


async def test_settlements_wait_while_redis_sleeps_and_are_applied_once(tmp_path: Path):
    with Redis(tmp_path) as server:
        state = PublishedState(server.url)
        state.stamp()
        principal = state.principal(concurrent=None, tenant_concurrent=None)
        calls = Calls(backlog_max_events=16_000)
        async with running_link(server.url) as link:
            settlements = Settlements(link=link, calls=calls, capacity=1000)
            leases = RedisLeases(
                link=link, calls=calls, buffer=settlements, refused=RefusedVersions(), clock=SystemClock()
            )
            async with running(settlements):
                held = [await leases.acquire(principal, new_id()) for _ in range(50)]
                settlements.settle(held[0], principal, held[0].lease_id.encode())
                assert await settlements.drained(2.0) == 0
                os.kill(server.pid, signal.SIGSTOP)
                for lease in held[1:]:
                    settlements.settle(lease, principal, lease.lease_id.encode())
                await until(lambda: settlements.is_stalled)
                assert await settlements.drained(0.05) == 49
                os.kill(server.pid, signal.SIGCONT)
                assert await settlements.drained(5.0) == 0
        assert sorted(state.usage(principal)) == sorted(lease.lease_id.encode() for lease in held)
        assert state.slots(principal) == (0, 0, 0)
        state.close()


async def test_settlements_wait_for_the_fence(leases: RedisLeases, settlements: Settlements, state: PublishedState):
    principal = state.principal()
    lease = await leases.acquire(principal, new_id())
    state.client.delete(keyspace.fence(principal.shard))
    async with running(settlements):
        settlements.settle(lease, principal, b"{}")
        await until(lambda: settlements.is_stalled)
        assert state.usage(principal) == []
        state.stamp(epoch=2)
        assert await settlements.drained(5.0) == 0
    assert state.usage(principal) == [b"{}"]


async def test_settlement_survives_flushed_scripts(
    leases: RedisLeases, settlements: Settlements, state: PublishedState
):
    principal = state.principal()
    async with running(settlements):
        lease = await leases.acquire(principal, new_id())
        state.client.script_flush()
        settlements.settle(lease, principal, b"{}")
        assert await settlements.drained(2.0) == 0
    assert state.usage(principal) == [b"{}"]


async def test_events_without_a_lease_are_appended(settlements: Settlements, state: PublishedState):
    principal = state.principal()
    async with running(settlements):
        settlements.append(principal, b"{}")
        assert await settlements.drained(2.0) == 0
    assert state.usage(principal) == [b"{}"]
