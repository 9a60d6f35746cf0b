"""Silent losses and silent repetitions are found and made good."""

from __future__ import annotations

import asyncio
import uuid

from controlplane.core.counters import TOTAL, Owner, periods_of
from controlplane.tasks import guard
from shared import keyspace
from shared.keyspace import SHARDS, LeaseId
from tests.fakes.counted import counter_of, drop_counter, put_counter
from tests.integration.ledger.planes import Keepers
from tests.integration.ledger.traffic import Traffic, add_tenant, raw_of, today


async def prepared(client) -> tuple[Traffic, Keepers]:
    traffic, keepers = Traffic(client, await add_tenant()), Keepers(client)
    await keepers.fence_keeper.check_once()
    for _ in range(5):
        await traffic.request(50)
    await keepers.drain.drain(SHARDS)
    return traffic, keepers


async def is_fenced(traffic: Traffic) -> bool:
    return bool(await traffic.client.exists(keyspace.fence(traffic.shard)))


async def test_a_counter_that_lost_something_takes_the_fence_of_its_shard_away_until_it_is_rebuilt(database, client):
    traffic, keepers = await prepared(client)
    await keepers.guard.look()
    assert await is_fenced(traffic)
    # Neither touched since nor named by anybody: the samples find it.
    await drop_counter(client, traffic.shard, traffic.owners[0].scope, periods_of(today())[1])
    await keepers.guard.look()
    assert not await is_fenced(traffic)
    assert len(await keepers.fences.missing((await keepers.fences.server()).incarnation)) == 1
    await keepers.fence_keeper.check_once()
    assert await traffic.differences() == {}
    assert await is_fenced(traffic)


async def test_a_fault_that_comes_back_does_not_deny_for_good(database, client):
    traffic, keepers = await prepared(client)
    name = keyspace.counters(traffic.shard, traffic.owners[0].scope)
    for fenced in (False, True):
        await client.delete(name)
        await keepers.guard.look()
        assert await is_fenced(traffic) is fenced
        await keepers.fence_keeper.check_once()


async def test_a_charge_that_was_repeated_after_its_tombstone_was_lost_is_taken_back(database, client):
    traffic, keepers = await prepared(client)
    key, lease_id = traffic.keys[0], str(uuid.uuid4())
    await traffic.admit(key, lease_id, today())
    await traffic.settle(key, lease_id, today(), 70)
    await keepers.drain.drain(SHARDS)
    await client.delete(keyspace.lease(traffic.shard, LeaseId(lease_id)))
    await traffic.settle(key, lease_id, today(), 70)
    await keepers.drain.drain(SHARDS)
    assert {more - less for more, less in (await traffic.differences() or {}).values()} == {70}
    await keepers.guard.look()
    assert await traffic.differences() != {}
    await keepers.guard.look()
    assert await traffic.differences() == {}
    assert await is_fenced(traffic)


async def test_waiting_events_are_no_difference_and_waiting_corrections_no_loss(database, client):
    traffic, keepers = await prepared(client)
    key, day = traffic.keys[0], today()
    await traffic.request(90)
    correction = raw_of(
        event_id="c:c",
        outcome="correction",
        tenant_id=key.tenant_id,
        key_id=key.key_id,
        day=day,
        prompt_tokens=-120,
        completion_tokens=0,
    )
    await client.xadd(keyspace.usage(traffic.shard), {"e": correction})
    for owner in (traffic.owners[0], key):
        for period in periods_of(day):
            counter = await counter_of(client, traffic.shard, owner.scope, period)
            assert counter is not None
            await put_counter(client, traffic.shard, owner.scope, period, used=counter.used - 120)
    for _ in range(3):
        await keepers.guard.look()
    assert await is_fenced(traffic)
    await keepers.drain.drain(SHARDS)
    await keepers.guard.look()
    assert await traffic.differences() == {}
    assert await is_fenced(traffic)


async def test_under_load_it_finds_nothing(database, client):
    traffic, keepers = await prepared(client)
    async with keepers.running(keepers.guard, keepers.drain), traffic.running():
        fence = await client.get(keyspace.fence(traffic.shard))
        await traffic.more(150)
        assert await client.get(keyspace.fence(traffic.shard)) == fence
    assert keepers.metrics.registry.get_sample_value("gateway_counters_lowered_total") == 0


async def test_keys_are_sampled_in_turn(database, client, monkeypatch):
    monkeypatch.setattr(guard, "SAMPLED_KEYS", 1)
    traffic, keepers = Traffic(client, await add_tenant(keys=3)), Keepers(client)
    await keepers.fence_keeper.check_once()
    for key in traffic.keys:
        await traffic.settle(key, str(uuid.uuid4()), today(), 50)
    await keepers.drain.drain(SHARDS)
    keepers.touched.take()
    await drop_counter(client, traffic.shard, traffic.keys[2].scope, TOTAL)
    looks = 0
    while await is_fenced(traffic):
        await keepers.guard.look()
        looks += 1
    assert looks == 3


async def test_it_waits_for_redis_and_postgres(database, client):
    keepers = Keepers(client, timeout_s=0.0)
    async with keepers.running(keepers.guard):
        await asyncio.sleep(0.3)


def test_what_was_touched_is_bounded(monkeypatch):
    monkeypatch.setattr(guard, "MAX_TOUCHED", 2)
    touched = guard.Touched()
    touched.add(Owner(tenant_id=keyspace.TenantId(str(number))) for number in range(5))
    assert len(touched.take()) == 2
    assert touched.take() == set()
