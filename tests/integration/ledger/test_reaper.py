"""Leases of workers that have died: taken by the real scripts, closed by the reaper."""

from __future__ import annotations

import asyncio
import math
import struct
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis as RedisClient

from controlplane.core.crashed import BrokenLeaseError, crashed_lease, event_of
from controlplane.errors import RedisUnavailableError
from controlplane.metrics import Metrics
from controlplane.publish import connection
from controlplane.publish.expired import ExpiredLeases, Reaped
from controlplane.publish.fence import Fences
from controlplane.tasks.reap import Reaper
from shared import keyspace, records
from shared.keyspace import KeyId, LeaseId, TenantId
from shared.records import UsageEvent
from tests.fakes import counted
from tests.fakes.published_state import PublishedState
from tests.integration.quota.caller import Caller, events_of

pytestmark = pytest.mark.redis


@pytest.fixture
def state(redis: Any) -> Any:
    published = PublishedState(redis.url)
    published.stamp()
    yield published
    published.close()


@pytest.fixture
def caller(state: PublishedState) -> Caller:
    return Caller(state, state.principal(tenant_id=TenantId(str(uuid.uuid4()))), cap=1000)


@pytest.fixture
async def client(redis: Any) -> AsyncIterator[RedisClient]:
    made = connection.connect(redis.url, connect_timeout_s=2)
    yield made
    await made.aclose()


@pytest.fixture
def reaper(client: RedisClient) -> Reaper:
    return reaper_on(client)


def reaper_on(client: RedisClient) -> Reaper:
    return Reaper(
        leases=ExpiredLeases(client, timeout_s=2), fences=Fences(client, timeout_s=2), metrics=Metrics(), every_s=0.05
    )


async def test_what_was_reserved_is_charged_and_the_slots_are_free(reaper: Reaper, caller: Caller):
    caller.acquire("dead")
    caller.acquire("alive")
    caller.expire("dead")
    assert await reaper.reap() == {Reaped.REAPED: 1}
    [event] = events_of(caller.state, caller.principal)
    assert (event.event_id, event.outcome, event.provenance) == ("dead", "crashed", "estimated")
    assert (event.prompt_tokens, event.completion_tokens) == (100, 50)
    assert (event.tenant_id, event.key_id) == (caller.principal.tenant_id, caller.principal.key_id)
    assert set(caller.state.budgets(caller.principal).values()) == {(150, 150)}
    assert caller.state.slots(caller.principal) == (1, 1, 1)
    assert counted.state_of(caller.state.client, caller.principal.shard, "dead") == "reaped"
    assert await reaper.reap() == {}


async def test_settlement_that_comes_later_is_told_and_its_correction_counts_once(reaper: Reaper, caller: Caller):
    caller.acquire("late")
    lease = caller.lease("late")
    caller.expire("late")
    await reaper.reap()
    assert caller.settle("late", tokens=70) == b"reaped"
    assert [caller.correct("late", 70 - 150), caller.correct("late", 70 - 150)] == [b"corrected", b"again"]
    assert set(caller.state.budgets(caller.principal).values()) == {(70, 0)}
    assert lease.prompt_bound == 100


async def test_abandoned_lease_costs_nothing(reaper: Reaper, caller: Caller):
    caller.acquire("unseen")
    assert caller.abandon("unseen", is_known_server=False) == b"marked"
    assert caller.acquire("unseen")[0] == b"closed"
    caller.expire("unseen")
    assert await reaper.reap() == {Reaped.RELEASED: 1}
    assert events_of(caller.state, caller.principal) == []
    assert set(caller.state.budgets(caller.principal).values()) == {(0, 0)}
    assert caller.state.slots(caller.principal) == (0, 0, 0)


async def test_nothing_is_charged_without_the_fence(reaper: Reaper, caller: Caller):
    caller.acquire("dead")
    caller.expire("dead")
    caller.state.client.delete(keyspace.fence(caller.principal.shard))
    assert await reaper.reap() == {}
    assert caller.state.usage(caller.principal) == []
    caller.state.stamp(epoch=2)
    assert await reaper.reap() == {Reaped.REAPED: 1}


async def test_many_reapers_close_each_lease_once(client: RedisClient, caller: Caller):
    lease_ids = [f"dead-{number}" for number in range(8)]
    for lease_id in lease_ids:
        caller.acquire(lease_id)
        caller.expire(lease_id)
    rounds = await asyncio.gather(*(reaper_on(client).reap() for _ in range(5)))
    assert sum(closed[Reaped.REAPED] for closed in rounds) == 8
    assert sorted(event.event_id for event in events_of(caller.state, caller.principal)) == lease_ids
    assert set(caller.state.budgets(caller.principal).values()) == {(8 * 150, 0)}


async def test_lease_that_was_renewed_meanwhile_lives(client: RedisClient, caller: Caller):
    caller.acquire("alive")
    leases, fences = ExpiredLeases(client, timeout_s=2), Fences(client, timeout_s=2)
    far_ms = await leases.now_ms() + 3_600_000
    [found] = await leases.find(now_ms=far_ms)
    incarnation = (await fences.server()).incarnation
    assert await leases.close(found, incarnation, now_ms=far_ms) is Reaped.RENEWED
    assert caller.state.slots(caller.principal) == (1, 1, 1)


async def test_lease_that_was_settled_meanwhile_is_charged_once(client: RedisClient, caller: Caller):
    caller.acquire("one")
    caller.expire("one")
    leases = ExpiredLeases(client, timeout_s=2)
    now_ms = await leases.now_ms()
    [found] = await leases.find(now_ms=now_ms)
    assert caller.settle("one", tokens=70) == b"settled"
    incarnation = (await Fences(client, timeout_s=2).server()).incarnation
    assert await leases.close(found, incarnation, now_ms=now_ms) is Reaped.GONE
    assert set(caller.state.budgets(caller.principal).values()) == {(70, 0)}
    assert len(caller.state.usage(caller.principal)) == 1


@pytest.mark.parametrize("damage", ["gone", "no scopes", "no number"])
async def test_broken_lease_is_counted_and_does_not_come_again(reaper: Reaper, caller: Caller, damage: str):
    caller.acquire("broken")
    name = keyspace.lease(caller.principal.shard, LeaseId("broken"))
    match damage:
        case "gone":
            caller.state.client.delete(name)
        case "no scopes":
            caller.state.client.set(name, caller.state.client.get(name).replace(b" k:", b" "))
        case _:
            caller.state.client.set(name, caller.state.client.get(name)[:30])
    caller.acquire("dead")
    caller.expire("broken")
    caller.expire("dead")
    assert await reaper.reap() == {Reaped.BROKEN: 1, Reaped.REAPED: 1}
    assert await reaper.reap() == {}


async def test_lease_of_yesterday_is_charged_to_yesterday(reaper: Reaper, caller: Caller):
    caller.acquire("old")
    name = keyspace.lease(caller.principal.shard, LeaseId("old"))
    lease = caller.lease("old")
    caller.state.client.set(
        name,
        caller.state.client.get(name).replace(
            struct.pack("<2d", int(lease.day), int(lease.month)), struct.pack("<2d", 20251231, 202512)
        ),
    )
    caller.expire("old")
    await reaper.reap()
    [event] = events_of(caller.state, caller.principal)
    assert event.day == "20251231"
    assert caller.state.budgets(caller.principal)["key 20251231"][0] == 150


async def test_reaper_goes_on_after_redis_was_away(client: RedisClient, caller: Caller, redis: Any):
    away = connection.connect("redis://127.0.0.1:1/0", connect_timeout_s=0.2)
    with pytest.raises(RedisUnavailableError):
        await reaper_on(away).reap()
    await away.aclose()
    task = asyncio.create_task(reaper_on(client).run())
    try:
        caller.acquire("dead")
        caller.expire("dead")
        async with asyncio.timeout(30):
            while not caller.state.usage(caller.principal):
                await asyncio.sleep(0.02)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def lease_text(
    *,
    reserved: float = 150,
    bound: float = 100,
    day: float = 20261121,
    month: float = 202611,
    key: str = f"k:{uuid.UUID(int=1)}",
    tenant: str = f"t:{uuid.UUID(int=2)}",
    event: str = "",
) -> bytes:
    numbers = struct.pack("<7d", reserved, 75, 1000, 50, bound, day, month)
    return b"open " + numbers + f"- {key} {tenant} {event}".encode()


@pytest.mark.parametrize(
    "changed",
    [
        {"key": "x:1"},
        {"tenant": "k:1"},
        {"reserved": -1},
        {"reserved": 99},
        {"bound": -5},
        {"reserved": 1.5},
        {"day": math.nan},
        {"month": math.inf},
    ],
)
def test_lease_that_cannot_be_charged_is_broken(changed: dict[str, Any]):
    with pytest.raises(BrokenLeaseError):
        crashed_lease(LeaseId("one"), lease_text(**changed))


def test_event_says_who_when_and_how_much_even_if_its_worker_prepared_nothing():
    event = event_of(crashed_lease(LeaseId("one"), lease_text()), now_ms=61_000)
    assert event == UsageEvent(
        event_id="one",
        request_id="one",
        tenant_id=TenantId(str(uuid.UUID(int=2))),
        key_id=KeyId(str(uuid.UUID(int=1))),
        day="20261121",
        created_at_ms=1000,
        dialect="",
        endpoint="",
        outcome="crashed",
        status=500,
        prompt_tokens=100,
        completion_tokens=50,
        provenance="estimated",
        duration_ms=60_000,
    )


def test_event_that_its_worker_prepared_is_completed():
    first = event_of(crashed_lease(LeaseId("one"), lease_text()), now_ms=2000)
    prepared = records.encode(first).decode().replace('"endpoint":""', '"endpoint":"/api/chat"')
    event = event_of(crashed_lease(LeaseId("one"), lease_text(event=prepared)), now_ms=500)
    assert (event.endpoint, event.duration_ms, event.completion_tokens) == ("/api/chat", 0, 50)
