"""Admission as the stages see it."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import msgspec
import pytest

from dataplane.errors import AuthenticationError, CannotCheckError, LimitExceededError
from dataplane.ports import StalePrincipalError
from dataplane.quota.leases import RedisLeases
from dataplane.quota.settlements import Settlements
from dataplane.values import Principal, RequestId
from shared import keyspace
from tests.fakes.published_state import PublishedState
from tests.integration.quota.caller import CRASHED, DEMAND, event

pytestmark = pytest.mark.redis


def new_id() -> RequestId:
    return RequestId(uuid.uuid4().hex)


async def test_racing_requests_never_exceed_the_concurrency_of_the_key(leases: RedisLeases, state: PublishedState):
    principal = state.principal(concurrent=7, tenant_concurrent=100)
    ends: list[Any] = await asyncio.gather(
        *(leases.acquire(principal, new_id(), DEMAND, CRASHED) for _ in range(200)), return_exceptions=True
    )
    refusals = [end for end in ends if isinstance(end, LimitExceededError)]
    assert (len(ends) - len(refusals), len(refusals)) == (7, 193)
    assert {(refusal.limit, refusal.retry_after_s) for refusal in refusals} == {("concurrency", 1)}
    assert state.slots(principal) == (7, 7, 7)


async def test_lease_carries_the_shard_the_day_and_the_moment_it_was_asked_for(
    leases: RedisLeases, state: PublishedState
):
    principal, request_id = state.principal(), new_id()
    lease = await leases.acquire(principal, request_id, DEMAND, CRASHED)
    assert (str(lease.lease_id), lease.shard) == (request_id, principal.shard)
    assert len(lease.day) == 8
    assert lease.day.isdigit()


@pytest.mark.parametrize(
    ("versions", "failure"), [({"key": -2}, "revoked"), ({"tenant": -2}, "suspended")], ids=["revoked", "suspended"]
)
async def test_refused_key_is_refused_on_the_next_request(
    leases: RedisLeases, state: PublishedState, versions: dict[str, int], failure: str
):
    principal = state.principal()
    await leases.acquire(principal, new_id(), DEMAND, CRASHED)
    state.live(principal, **versions)
    for attempt in (leases.acquire(principal, new_id(), DEMAND, CRASHED), leases.check(principal)):
        with pytest.raises(AuthenticationError) as refusal:
            await attempt
        assert refusal.value.failure == failure


async def test_expired_key_is_refused(leases: RedisLeases, state: PublishedState):
    with pytest.raises(AuthenticationError, match="expired"):
        await leases.acquire(state.principal(expires_at_ms=1), new_id(), DEMAND, CRASHED)


async def test_newer_version_makes_the_principal_stale(leases: RedisLeases, state: PublishedState):
    principal = state.principal()
    state.live(principal, tenant=2)
    with pytest.raises(StalePrincipalError):
        await leases.acquire(principal, new_id(), DEMAND, CRASHED)
    with pytest.raises(StalePrincipalError):
        await leases.check(principal)
    await leases.check(msgspec.structs.replace(principal, tenant_version=2))


async def test_changed_limit_holds_with_the_new_version(leases: RedisLeases, state: PublishedState):
    principal = state.principal(concurrent=1)
    await leases.acquire(principal, new_id(), DEMAND, CRASHED)
    with pytest.raises(LimitExceededError):
        await leases.acquire(principal, new_id(), DEMAND, CRASHED)
    limits = msgspec.structs.replace(principal.key_limits, concurrent=2)
    await leases.acquire(
        msgspec.structs.replace(principal, key_version=2, key_limits=limits), new_id(), DEMAND, CRASHED
    )


async def test_backlog_over_its_cap_denies(leases: RedisLeases, state: PublishedState):
    principal = state.principal()
    pipeline = state.client.pipeline()
    for _ in range(1000):
        pipeline.xadd(keyspace.usage(principal.shard), {"e": "{}"})
    pipeline.execute()
    with pytest.raises(CannotCheckError, match="backlog") as denied:
        await leases.acquire(principal, new_id(), DEMAND, CRASHED)
    assert denied.value.reason == "backlog"


async def test_full_settlement_buffer_denies(leases: RedisLeases, settlements: Settlements, state: PublishedState):
    principal = state.principal()
    held = [await leases.acquire(principal, new_id(), DEMAND, CRASHED) for _ in range(2)]
    state.client.delete(keyspace.fence(principal.shard))
    for _ in range(10):
        settlements.append(principal, event("one"))
    async with asyncio.timeout(10):
        while not settlements.is_full:
            await asyncio.sleep(0.001)
    state.stamp()
    with pytest.raises(CannotCheckError, match="buffer"):
        await leases.acquire(principal, new_id(), DEMAND, CRASHED)
    with pytest.raises(CannotCheckError, match="buffer"):
        await leases.check(principal)
    # What was admitted before is still taken.
    settlements.settle(held[0], principal, event(held[0].lease_id))


async def test_principals_are_not_mixed_up_by_their_packed_calls(leases: RedisLeases, state: PublishedState):
    principals: list[Principal] = [state.principal(concurrent=1) for _ in range(50)]
    await asyncio.gather(*(leases.acquire(principal, new_id(), DEMAND, CRASHED) for principal in principals))
    assert {state.slots(principal)[:2] for principal in principals} == {(1, 1)}
