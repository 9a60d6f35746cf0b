"""Whatever happens to Redis: counters that are believed never have less than the ledger, and end with the same."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import struct
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis as RedisClient
from redis.exceptions import OutOfMemoryError

from controlplane.core.counters import TOTAL, Owner, periods_of, warm_periods
from controlplane.publish import connection
from controlplane.publish.counters import Fate, OpenLease
from controlplane.store import engine
from deploy.local.redis import DATA, Redis
from shared import keyspace, layout
from shared.keyspace import SHARDS, LeaseId, Scope
from shared.layout import Counter
from tests.fakes.counted import counter_of, put_counter
from tests.integration.ledger.planes import Keepers
from tests.integration.ledger.traffic import RESERVED, Traffic, add_tenant, raw_of, today


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Redis]:
    with Redis(tmp_path / "own") as server:
        yield server


@pytest.fixture
async def own(server: Redis) -> AsyncIterator[RedisClient]:
    async with connection.connect(server.url, connect_timeout_s=1.0) as client:
        yield client


async def eventually(condition: Callable[[], Coroutine[Any, Any, Any]], timeout_s: float = 30.0) -> Any:
    async with asyncio.timeout(timeout_s):
        while not (result := await condition()):
            await asyncio.sleep(0.02)
        return result


async def agree(traffic: Traffic) -> None:
    """Everything is drained, and the counters are the ledger's."""

    async def same() -> bool:
        if await traffic.client.xlen(keyspace.usage(traffic.shard)):
            return False
        return await traffic.differences() == {}

    await eventually(same)


async def restarted(server: Redis, client: RedisClient, traffic: Traffic) -> None:
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)


async def killed(server: Redis, client: RedisClient, traffic: Traffic) -> None:
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)


async def flushed(server: Redis, client: RedisClient, traffic: Traffic) -> None:
    await client.flushall()


async def emptied(server: Redis, client: RedisClient, traffic: Traffic) -> None:
    await asyncio.to_thread(server.stop)
    shutil.rmtree(server.folder / DATA)
    await asyncio.to_thread(server.start)


async def restored_from_an_old_snapshot(server: Redis, client: RedisClient, traffic: Traffic) -> None:
    data, copy = server.folder / DATA, server.folder / "copy"
    await asyncio.to_thread(server.stop)
    shutil.copytree(data, copy)
    await asyncio.to_thread(server.start)
    await traffic.more(100)
    await asyncio.to_thread(server.stop)
    shutil.rmtree(data)
    copy.rename(data)
    await asyncio.to_thread(server.start)


async def out_of_memory(server: Redis, client: RedisClient, traffic: Traffic) -> None:
    key, lease_id, day = traffic.keys[0], str(uuid.uuid4()), today()
    assert await traffic.admit(key, lease_id, day) == "admitted"
    await client.config_set("maxmemory", "100kb")
    # What waits is drained all the same, or nobody would ever make room.
    await eventually(lambda: _is_drained(client))
    with pytest.raises(OutOfMemoryError):
        await traffic.settle(key, lease_id, day, 50)
    await client.config_set("maxmemory", "256mb")
    assert await traffic.settle(key, lease_id, day, 50) == "settled"


async def read_only(server: Redis, client: RedisClient, traffic: Traffic) -> None:
    await client.replicaof("127.0.0.1", 1)
    await asyncio.sleep(0.2)
    await client.replicaof("NO", "ONE")


async def _is_drained(client: RedisClient) -> bool:
    return not any([await client.xlen(keyspace.usage(shard)) for shard in SHARDS])


FAULTS = (restarted, killed, flushed, emptied, restored_from_an_old_snapshot, out_of_memory, read_only)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_counters_survive_redis_being(fault, database, server, own):
    traffic, keepers = Traffic(own, await add_tenant()), Keepers(own)
    watching = asyncio.create_task(traffic.watch())
    async with keepers.running(), traffic.running():
        await traffic.more(50)
        await fault(server, own, traffic)
        await traffic.more(50)
    async with keepers.running():
        await agree(traffic)
    assert not watching.done() or watching.result()
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    # What the counters reserve is what the leases that are left do; only lost data leaves any for the reaper.
    left = await own.zcard(keyspace.expiry(traffic.shard))
    tenant = traffic.owners[0].scope
    assert (await traffic.reserved()).get((tenant, TOTAL), 0) == left * RESERVED
    assert left <= traffic.unseen or fault is restored_from_an_old_snapshot
    async with engine.connection() as held:
        assert await held.fetchval("SELECT count(DISTINCT event_id) = count(*) FROM gateway.audit_log")


async def stamped(keepers: Keepers) -> None:
    await eventually(lambda: _stamped(keepers))


async def _stamped(keepers: Keepers) -> bool:
    await keepers.fence_keeper.check_once()
    return not await keepers.fences.missing((await keepers.fences.server()).incarnation)


async def test_a_lease_of_an_old_snapshot_that_the_ledger_knows_is_closed_and_others_keep_their_reservation(
    database, server, own
):
    traffic, keepers = Traffic(own, await add_tenant()), Keepers(own)
    await stamped(keepers)
    key, day = traffic.keys[0], today()
    known, unknown = str(uuid.uuid4()), str(uuid.uuid4())
    for lease_id in (known, unknown):
        assert await traffic.admit(key, lease_id, day) == "admitted"
    await own.zadd(keyspace.expiry(traffic.shard), {unknown: 1, "nothing": 1})
    saved = {name: await own.dump(name) for name in await own.keys("gateway:{*")}
    assert await traffic.settle(key, known, day, 70) == "settled"
    await keepers.drain.drain(SHARDS)
    await own.flushall()
    for name, value in saved.items():
        await own.restore(name, 0, value)
    await own.delete(keyspace.fence(traffic.shard))
    before_ms = time.time() * 1000
    await stamped(keepers)
    # The worker did not see the answer to its settlement and sends it again.
    assert await traffic.settle(key, known, day, 70) == "again"
    assert await traffic.differences() == {}
    assert set((await traffic.reserved()).values()) == {RESERVED}
    members = dict(await own.zrange(keyspace.expiry(traffic.shard), 0, -1, withscores=True))
    assert list(members) == [unknown.encode()]
    assert members[unknown.encode()] > before_ms + 20_000
    assert await own.zscore(keyspace.leases(traffic.shard, key.scope), known) is None
    assert await traffic.settle(key, unknown, day, 30) == "settled"
    await keepers.drain.drain(SHARDS)
    assert await traffic.differences() == {}
    assert await traffic.reserved() == {}


async def test_events_that_wait_are_counted_once_however_often_they_are_in_the_stream(database, server, own):
    traffic, keepers = Traffic(own, await add_tenant()), Keepers(own)
    key, day = traffic.keys[0], today()
    fields: dict[str, Any] = {"tenant_id": key.tenant_id, "key_id": key.key_id, "day": day, "prompt_tokens": 90}
    drained, twice = raw_of(event_id="drained", **fields), raw_of(event_id="twice", **fields)
    stream = keyspace.usage(traffic.shard)
    await own.xadd(stream, {"e": drained})
    await keepers.drain.drain(SHARDS)
    correction = raw_of(event_id="c", outcome="correction", **fields | {"prompt_tokens": -40, "completion_tokens": 0})
    for raw in (drained, twice, twice, b"no event", correction):
        await own.xadd(stream, {"e": raw})
    await stamped(keepers)
    counter = await counter_of(own, traffic.shard, key.scope, TOTAL)
    assert counter is not None
    assert counter.used == 160
    await keepers.drain.drain(SHARDS)
    assert await traffic.differences() == {}


async def test_counters_of_nobody_and_of_periods_that_are_over_are_removed(database, server, own):
    traffic, keepers = Traffic(own, await add_tenant()), Keepers(own)
    for scope in (Scope("k:nobody"), traffic.keys[0].scope):
        for period in periods_of("20200101"):
            await put_counter(own, traffic.shard, scope, period, used=5, reserved=7)
    other = keyspace.window(traffic.shard, Scope("k:nobody"))
    await own.set(other, "stays")
    await stamped(keepers)
    for scope in (Scope("k:nobody"), traffic.keys[0].scope):
        assert await own.exists(keyspace.counters(traffic.shard, scope)) == 0
    assert await own.exists(other)


async def test_the_head_of_the_windows_stays_as_long_as_it_counts(database, server, own):
    traffic, keepers = Traffic(own, await add_tenant()), Keepers(own)
    now_s, _ = await own.time()
    heads = {}
    for owner, last_s in zip(traffic.owners, (now_s, now_s - 60, now_s - 200), strict=True):
        name = keyspace.counters(traffic.shard, owner.scope)
        heads[name] = struct.pack("<7d", last_s * 1000, 1, 1, 50, last_s, 1, 50)
        await own.set(name, layout.write_counters({}) + heads[name])
    await put_counter(own, traffic.shard, traffic.owners[0].scope, TOTAL, used=5)
    await stamped(keepers)
    kept = [await own.get(name) for name in heads]
    assert kept[:2] == [layout.write_counters({}) + head for head in heads.values()][:2]
    assert kept[2] is None


async def test_counters_come_back_with_this_and_the_last_day_and_month_and_never_expire(database, server, own):
    traffic, keepers = Traffic(own, await add_tenant()), Keepers(own)
    await stamped(keepers)
    today_, yesterday, month, last_month, total = warm_periods(await keepers.counters.now())
    for day in (today_, yesterday, f"{last_month}01", "20200101"):
        await traffic.settle(traffic.keys[0], str(uuid.uuid4()), day, 50)
    await keepers.drain.drain(SHARDS)
    await own.flushall()
    await stamped(keepers)
    name = keyspace.counters(traffic.shard, traffic.owners[0].scope)
    found = {period: counter.used for period, counter in layout.read_counters(await own.get(name)).items()}
    assert found.keys() == {today_, yesterday, month, last_month, total}
    assert found[total] == 200
    assert await own.ttl(name) == -1


async def test_a_flush_during_a_rebuild_stamps_nothing(database, server, own):
    keepers = Keepers(own)
    traffic = Traffic(own, await add_tenant())
    token = await keepers.fences.begin(SHARDS, (await keepers.fences.server()).incarnation)
    values = [(traffic.owners[0].scope, {TOTAL: Counter(5, 0)})]
    assert await keepers.counters.write(traffic.shard, token, values)
    assert await keepers.fences.keep(SHARDS, token)
    await own.delete(keyspace.rebuild_token(SHARDS[3]))
    assert not await keepers.fences.keep(SHARDS, token)
    await own.flushall()
    assert not await keepers.counters.write(traffic.shard, token, values)
    fates = [(OpenLease(lease_id=LeaseId("x")), Fate.CLOSE)]
    assert not await keepers.counters.write_leases(traffic.shard, token, fates)
    assert not await keepers.fences.stamp(traffic.shard, token)
    assert await own.exists(keyspace.counters(traffic.shard, values[0][0])) == 0


async def test_ten_thousand_keys_are_rebuilt_in_ten_seconds(database, server, own):
    async with engine.transaction() as held:
        await held.execute(
            """
            INSERT INTO gateway.tenants (id, name)
            SELECT lpad(n::text, 32, '0')::uuid, 't-' || n FROM generate_series(1, 100) AS n;
            INSERT INTO gateway.tenant_limits (tenant_id) SELECT id FROM gateway.tenants;
            INSERT INTO gateway.api_keys (id, tenant_id, prefix, name, hash, created_at)
            SELECT lpad((1000 + n)::text, 32, '0')::uuid, lpad((1 + n % 100)::text, 32, '0')::uuid,
                'nz_' || lpad(n::text, 9, '0'), 'k', '$argon2id$', now() + n * interval '1 microsecond'
            FROM generate_series(1, 10000) AS n;
            INSERT INTO gateway.key_limits (key_id) SELECT id FROM gateway.api_keys;
            INSERT INTO gateway.budget_usage (scope_kind, scope_id, period, total_tokens)
            SELECT 'key', id, period, 7 FROM gateway.api_keys,
                unnest(ARRAY[to_char(now(), 'YYYYMMDD'), to_char(now(), 'YYYYMM'), 'total', '20200101']) AS period
            """
        )
    keepers = Keepers(own)
    started_s = time.monotonic()
    await keepers.fence_keeper.check_once()
    took_s = time.monotonic() - started_s
    assert not await keepers.fences.missing((await keepers.fences.server()).incarnation)
    assert len([name async for name in own.scan_iter("gateway:{*}:counters:*", count=5000)]) == 10_000
    assert took_s < 10


def test_an_owner_is_the_scope_that_admission_uses():
    owner = Owner(tenant_id=keyspace.TenantId("t"), key_id=keyspace.KeyId("k"))
    assert (owner.scope, Owner(tenant_id=owner.tenant_id).scope) == ("k:k", "t:t")
    assert keyspace.lease(SHARDS[0], LeaseId("x")).endswith(":lease:x")
