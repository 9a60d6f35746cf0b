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
from dataplane.quota.link import Link
from dataplane.quota.refused import RefusedVersions
from dataplane.quota.settlements import Settlements
from dataplane.values import Lease, Principal, RequestId
from deploy.local.redis import Redis
from shared import keyspace
from shared.clock import SystemClock
from tests.fakes import counted
from tests.fakes.published_state import PublishedState
from tests.fakes.redis_link import running_link
from tests.fakes.waiting import until
from tests.integration.quota.caller import CRASHED, DEMAND, event, events_of

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
            lease = await leases.acquire(principal, new_id(), DEMAND, CRASHED)
            settlements.settle(lease, principal, event(str(number)))
        assert await settlements.drained(10.0) == 0
    assert {event.event_id for event in events_of(state, principal)} == set(map(str, range(20)))
    assert set(state.budgets(principal).values()) == {(20 * 70, 0)}
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
                held = [await leases.acquire(principal, new_id(), DEMAND, CRASHED) for _ in range(50)]
                settlements.settle(held[0], principal, event(held[0].lease_id))
                assert await settlements.drained(10.0) == 0
                os.kill(server.pid, signal.SIGSTOP)
                for lease in held[1:]:
                    settlements.settle(lease, principal, event(lease.lease_id))
                await until(lambda: settlements.is_stalled)
                assert await settlements.drained(0.05) == 49
                os.kill(server.pid, signal.SIGCONT)
                assert await settlements.drained(20.0) == 0
        assert sorted(event.event_id for event in events_of(state, principal)) == sorted(
            lease.lease_id for lease in held
        )
        assert state.slots(principal) == (0, 0, 0)
        state.close()


async def test_settlements_wait_for_the_fence(leases: RedisLeases, settlements: Settlements, state: PublishedState):
    principal = state.principal()
    lease = await leases.acquire(principal, new_id(), DEMAND, CRASHED)
    state.client.delete(keyspace.fence(principal.shard))
    async with running(settlements):
        settlements.settle(lease, principal, event("one"))
        await until(lambda: settlements.is_stalled)
        assert state.usage(principal) == []
        state.stamp(epoch=2)
        assert await settlements.drained(20.0) == 0
    assert events_of(state, principal) == [event("one")]


async def test_settlement_waits_until_forgotten_functions_are_loaded(
    leases: RedisLeases, settlements: Settlements, state: PublishedState
):
    principal = state.principal()
    async with running(settlements):
        lease = await leases.acquire(principal, new_id(), DEMAND, CRASHED)
        state.client.function_flush()
        settlements.settle(lease, principal, event("one"))
        await until(lambda: settlements.is_stalled)
        state.load()
        assert await settlements.drained(10.0) == 0
    assert events_of(state, principal) == [event("one")]


async def test_events_without_a_lease_are_appended(settlements: Settlements, state: PublishedState):
    principal = state.principal()
    async with running(settlements):
        settlements.append(principal, event("one"))
        assert await settlements.drained(10.0) == 0
    assert events_of(state, principal) == [event("one")]


@pytest.mark.parametrize("by", ["events", "bytes"])
async def test_a_full_backlog_takes_settlements_and_makes_everything_else_wait(
    link: Link, state: PublishedState, by: str
):
    principal, calls = state.principal(), Calls(backlog_max_events=16)
    settlements = Settlements(link=link, calls=calls, capacity=10)
    leases = RedisLeases(
        link=link, calls=calls, buffer=settlements, refused=RefusedVersions(), clock=SystemClock()
    )  # fmt: skip
    lease = await leases.acquire(principal, new_id(), DEMAND, CRASHED)
    usage, deny = keyspace.usage(principal.shard), keyspace.deny(principal.shard)
    if by == "events":
        state.client.xadd(usage, {"e": b"{}"})
    else:
        state.client.set(deny, "bytes")
    async with running(settlements):
        settlements.append(principal, event("waits"))
        await until(lambda: settlements.is_stalled)
        settlements.settle(lease, principal, event("one"))
        await until(lambda: b"one" in b"".join(state.usage(principal)))
        assert b"waits" not in b"".join(state.usage(principal))
        assert settlements.unsettled == 1
        # Drained: there is room again.
        state.client.xtrim(usage, maxlen=0)
        state.client.delete(deny)
        assert await settlements.drained(3.0) == 0
    assert events_of(state, principal) == [event("waits")]


async def test_settlement_after_the_reaper_is_a_correction(
    leases: RedisLeases, settlements: Settlements, state: PublishedState
):
    principal = state.principal()
    lease = await leases.acquire(principal, new_id(), DEMAND, CRASHED)
    reap(state, principal, lease)
    async with running(settlements):
        settlements.settle(lease, principal, event(lease.lease_id))
        assert await settlements.drained(10.0) == 0
    [correction] = events_of(state, principal)
    assert correction == event(
        f"{lease.lease_id}:c",
        request_id=lease.lease_id,
        outcome="correction",
        prompt_tokens=40 - 100,
        completion_tokens=30 - 50,
    )
    assert set(state.budgets(principal).values()) == {(70, 0)}


async def test_correction_waits_for_redis_like_every_settlement(
    leases: RedisLeases, settlements: Settlements, state: PublishedState
):
    principal = state.principal()
    lease = await leases.acquire(principal, new_id(), DEMAND, CRASHED)
    reap(state, principal, lease)
    fence = state.client.getdel(keyspace.fence(principal.shard))
    async with running(settlements):
        settlements.settle(lease, principal, event(lease.lease_id))
        await until(lambda: settlements.is_stalled)
        state.client.set(keyspace.fence(principal.shard), fence)
        assert await settlements.drained(20.0) == 0
    assert [event.outcome for event in events_of(state, principal)] == ["correction"]
    assert set(state.budgets(principal).values()) == {(70, 0)}


def reap(state: PublishedState, principal: Principal, lease: Lease) -> None:
    """What the control plane's reaper does to a lease, but for its event."""
    for scope in (keyspace.key_scope(principal.key_id), keyspace.tenant_scope(principal.tenant_id)):
        state.client.zrem(keyspace.leases(lease.shard, scope), lease.lease_id)
        for period in (lease.day, lease.month, "total"):
            counted.set_counter(state.client, lease.shard, scope, period, used=150, reserved=0)
    state.client.zrem(keyspace.expiry(lease.shard), lease.lease_id)
    state.client.set(keyspace.lease(lease.shard, lease.lease_id), "reaped")
