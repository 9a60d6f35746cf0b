from __future__ import annotations

import asyncio
import contextlib
import json
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis as RedisClient

from controlplane.core.counters import CounterName, charged
from controlplane.core.usage import row_of
from controlplane.errors import RedisUnavailableError, StoreUnavailableError
from controlplane.metrics import Metrics
from controlplane.publish import connection
from controlplane.publish.usage_stream import ACKNOWLEDGED_AT_ONCE, UsageStreams
from controlplane.store import engine, ledger
from controlplane.tasks.drain_usage import UsageDrain
from controlplane.tasks.guard import Touched
from deploy.local.postgres import Postgres
from deploy.local.redis import Redis
from shared import keyspace
from shared.clock import SystemClock
from shared.keyspace import SHARDS, USAGE_GROUP, Shard, TenantId
from tests.integration import servers
from tests.integration.ledger import events
from tests.integration.ledger.events import SHARD, STREAM, append, changed, event, raw


class CrashingStreams(UsageStreams):
    """A process that ends after the commit and before it acknowledges."""

    async def acknowledge(self, shard: Shard, entry_ids: Sequence[str]) -> None:
        raise RedisUnavailableError("gone")


def draining(streams: UsageStreams, **options: Any) -> UsageDrain:
    return UsageDrain(streams=streams, clock=SystemClock(), metrics=Metrics(), touched=Touched(), **options)


def drain_of(client: RedisClient, consumer: str = "a", *, claim_idle_s: float = 0.0) -> UsageDrain:
    streams = UsageStreams(client, consumer=consumer)
    return draining(streams, claim_idle_s=claim_idle_s, claim_every_s=0.2)


@contextlib.asynccontextmanager
async def running(*drains: UsageDrain) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(drain.run()) for drain in drains]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)


async def rows(query: str, *arguments: object) -> list[asyncpg.Record]:
    async with engine.connection() as held:
        return await held.fetch(query, *arguments)


async def audited() -> list[str]:
    return [row[0] for row in await rows("SELECT event_id FROM gateway.audit_log ORDER BY event_id")]


async def eventually(condition, timeout_s: float = 30.0):
    async with asyncio.timeout(timeout_s):
        while not (result := await condition()):
            await asyncio.sleep(0.02)
        return result


async def count_of_audited() -> int:
    return int((await rows("SELECT count(*) FROM gateway.audit_log"))[0][0])


async def assert_sums_agree() -> None:
    """What ``budget_usage`` says is what the audit rows sum up to, in every scope and period."""
    expected = """
        SELECT kind, id, period, sum(prompt_tokens), sum(completion_tokens), sum(total_tokens),
            sum(CASE WHEN outcome IN ('refused', 'correction') THEN 0 ELSE occurrences END)
        FROM gateway.audit_log,
            LATERAL (VALUES ('key', key_id), ('tenant', tenant_id)) AS scope (kind, id),
            LATERAL (VALUES (to_char(day, 'YYYYMMDD')), (to_char(day, 'YYYYMM')), ('total')) AS p (period)
        WHERE outcome <> 'refused' GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"""
    found = """
        SELECT scope_kind::text, scope_id, period, prompt_tokens, completion_tokens, total_tokens, requests
        FROM gateway.budget_usage ORDER BY 1, 2, 3"""
    assert [tuple(row) for row in await rows(found)] == [tuple(row) for row in await rows(expected)]


async def test_events_become_audit_rows_and_leave_the_stream(database, client):
    await append(
        client,
        raw(1),
        raw(
            2,
            ttft_ms=7,
            refusal="model_not_allowed",
            outcome="refused",
            status=403,
            prompt_tokens=0,
            completion_tokens=0,
        ),
    )
    async with running(drain_of(client)):
        await eventually(lambda: _is_empty(client))
    found = await rows("SELECT * FROM gateway.audit_log ORDER BY event_id")
    assert [row["event_id"] for row in found] == ["event-1", "event-2"]
    first = dict(found[0])
    assert (first["prompt_tokens"], first["completion_tokens"], first["total_tokens"]) == (1, 10, 11)
    assert (str(first["tenant_id"]), str(first["key_id"])) == (events.TENANT, events.KEY)
    assert first["created_at"].timestamp() * 1000 == events.CREATED_MS
    assert found[1]["ttft_ms"] == 7
    assert found[1]["refusal"] == "model_not_allowed"
    await assert_sums_agree()


async def _is_empty(client: RedisClient) -> bool:
    lengths = [await client.xlen(keyspace.usage(shard)) for shard in SHARDS]
    return not any(lengths) and await count_of_audited() > 0


async def test_budget_usage_counts_day_month_and_total_of_key_and_tenant(database, client):
    other_key = str(uuid.UUID(int=9))
    await append(
        client,
        raw(1),
        raw(2, day="20261122"),
        raw(3, day="20261201", key_id=other_key),
        raw(4, outcome="refused", status=429, prompt_tokens=0, completion_tokens=0, occurrences=50),
        raw(5, outcome="crashed", prompt_tokens=1000, completion_tokens=1000),
        raw(6, outcome="correction", prompt_tokens=-990, completion_tokens=-900),
    )
    await drain_of(client).drain(SHARDS)
    found = {
        (row["scope_kind"], str(row["scope_id"]), row["period"]): (row["total_tokens"], row["requests"])
        for row in await rows("SELECT * FROM gateway.budget_usage")
    }
    assert found["key", events.KEY, "20261121"] == (11 + 110, 2)
    assert found["key", events.KEY, "202611"] == (11 + 12 + 110, 3)
    assert found["tenant", events.TENANT, "total"] == (11 + 12 + 13 + 110, 4)
    assert found["key", other_key, "202612"] == (13, 1)
    await assert_sums_agree()


async def test_a_crash_between_commit_and_acknowledgement_charges_once(database, client):
    await append(client, raw(1), raw(2))
    first = draining(CrashingStreams(client, consumer="first"))
    with pytest.raises(RedisUnavailableError):
        await first.drain(SHARDS)
    assert await audited() == ["event-1", "event-2"]
    assert await client.xlen(STREAM) == 2
    assert await drain_of(client, "second").claim(SHARDS) == 2
    assert await audited() == ["event-1", "event-2"]
    assert await client.xlen(STREAM) == 0
    assert (await client.xpending(STREAM, USAGE_GROUP))["pending"] == 0
    await assert_sums_agree()


async def test_entries_of_a_dead_consumer_are_recorded_by_another(database, client):
    await append(client, raw(1))
    dead = UsageStreams(client, consumer="dead")
    assert len(await dead.read(SHARDS, count=10, block_s=0.001)) == 1
    async with running(drain_of(client, "alive", claim_idle_s=0.1)):
        await eventually(lambda: _is_empty(client))
    assert await audited() == ["event-1"]


async def test_an_event_that_arrives_twice_counts_once(database, client):
    await append(client, raw(1), raw(1), raw(2))
    await drain_of(client).drain(SHARDS)
    await append(client, raw(2), raw(1))
    await drain_of(client).drain(SHARDS)
    assert await audited() == ["event-1", "event-2"]
    assert await client.xlen(STREAM) == 0
    await assert_sums_agree()


async def test_events_out_of_order_and_of_any_day_find_their_partitions(database, client):
    days = ["20261121", "20240229", "20310101", "20261120", "20240229"]
    await append(client, *(raw(number, day=day) for number, day in enumerate(days)))
    await drain_of(client).drain(SHARDS)
    assert await count_of_audited() == 5
    await assert_sums_agree()


POISON = {
    "no json": b"{",
    "another document": b"[1, 2]",
    "bad utf-8": b'{"event_id": "\xff"}',
    "deep": b"[" * 100_000,
    "no such outcome": changed(event(), outcome="exploded"),
    "no such day": changed(event(), day="20260231"),
    "a day in words": changed(event(), day="today"),
    "an impossible year": changed(event(), day="99991231"),
    "no uuid": changed(event(), tenant_id="acme"),
    "negative tokens": changed(event(), prompt_tokens=-1),
    "absurd tokens": changed(event(), completion_tokens=2**60),
    "huge number": json.dumps(json.loads(changed(event())) | {"prompt_tokens": 10**400}).encode(),
    "no id": changed(event(), event_id=""),
    "an endless id": changed(event(), event_id="x" * 5000),
    "a zero byte in the id": changed(event(), event_id="a\0b"),
    "an absurd moment": changed(event(), created_at_ms=10**18),
    "an absurd status": changed(event(), status=10**6),
    "no occurrences": changed(event(), occurrences=0),
    "endless keeping": changed(event(), prompt_log_days=10**9),
}


async def test_poison_is_buried_and_holds_up_nobody(database, client):
    for raw_poison in POISON.values():
        await append(client, raw_poison)
    await client.xadd(STREAM, {"x": "no event field"})
    await append(client, raw(1))
    await drain_of(client).drain(SHARDS)
    assert await audited() == ["event-1"]
    assert await client.xlen(STREAM) == 0
    letters = await rows("SELECT * FROM control.dead_letters")
    assert len(letters) == len(POISON) + 1
    assert all(row["shard"] == SHARD and row["reason"] for row in letters)


async def test_an_event_that_only_the_database_refuses_is_buried_alone(database, client):
    async with engine.connection() as held:
        await held.execute("ALTER TABLE gateway.audit_log ADD CONSTRAINT no_tea CHECK (status <> 418)")
    await append(client, *(raw(number, status=418 if number in (3, 11) else 200) for number in range(20)))
    await drain_of(client).drain(SHARDS)
    assert await count_of_audited() == 18
    assert len(await rows("SELECT * FROM control.dead_letters WHERE reason = 'CheckViolationError'")) == 2
    assert await client.xlen(STREAM) == 0
    await assert_sums_agree()


async def test_prompts_are_kept_only_where_asked_and_survive_zero_bytes(database, client):
    await append(
        client,
        raw(1, prompt="hello\0world", reply="hi", prompt_log_days=30),
        raw(2, prompt="not asked for"),
        raw(3, prompt_log_days=30),
        raw(4),
    )
    await drain_of(client).drain(SHARDS)
    found = await rows("SELECT * FROM gateway.prompt_log")
    assert [row["event_id"] for row in found] == ["event-1"]
    assert found[0]["prompt"] == "hello\N{REPLACEMENT CHARACTER}world"
    assert str(found[0]["expires_on"]) == "2026-12-21"
    assert await count_of_audited() == 4


async def test_the_watermark_stops_before_what_is_not_recorded(database, client):
    first, second, third = await append(client, raw(1), raw(2), raw(3))
    slow, fast = UsageStreams(client, consumer="slow"), UsageStreams(client, consumer="fast")
    (held,) = await slow.read([SHARD], count=1, block_s=0.001)
    taken = await fast.read([SHARD], count=10, block_s=0.001)
    assert (held.entry_id, [entry.entry_id for entry in taken]) == (first, [second, third])

    async def watermark() -> tuple[int, int]:
        ms, _, sequence = (await client.get(keyspace.drained(SHARD))).decode().partition("-")
        return int(ms), int(sequence)

    def id_of(entry_id: str) -> tuple[int, int]:
        ms, _, sequence = entry_id.partition("-")
        return int(ms), int(sequence)

    await fast.acknowledge(SHARD, [second, third])
    assert await watermark() < id_of(first)
    await slow.acknowledge(SHARD, [first])
    assert await watermark() == id_of(third)
    (fourth,) = await append(client, raw(4))
    await fast.acknowledge(SHARD, [])
    assert await watermark() < id_of(fourth)


async def test_many_are_acknowledged_in_calls_that_hold_nobody_up(database, client):
    ids = await append(client, *(raw(number) for number in range(2 * ACKNOWLEDGED_AT_ONCE + 1)))
    streams = UsageStreams(client, consumer="a")
    assert len(await streams.read([SHARD], count=len(ids), block_s=0.001)) == len(ids)
    # The first call is by its source, if the server has not seen the script before.
    await streams.acknowledge(SHARD, [])
    await client.config_resetstat()
    await streams.acknowledge(SHARD, ids)
    assert (await client.info("commandstats"))["cmdstat_evalsha"]["calls"] == 3
    assert await client.xlen(STREAM) == 0
    assert await client.get(keyspace.drained(SHARD)) == ids[-1].encode()


async def test_a_redis_that_lost_everything_is_drained_again(database, client):
    async with running(drain_of(client)):
        await append(client, raw(1))
        await eventually(lambda: _has(1))
        await client.flushall()
        await append(client, raw(2))
        await eventually(lambda: _has(2))
        await client.delete(STREAM)
        await append(client, raw(3))
        await eventually(lambda: _has(3))


async def _has(count: int) -> bool:
    return await count_of_audited() >= count


async def test_redis_away_is_waited_for(database, tmp_path):
    with Redis(tmp_path) as server:
        async with connection.connect(server.url, connect_timeout_s=2.0) as client, running(drain_of(client)):
            await append(client, raw(1))
            await eventually(lambda: _has(1))
            await asyncio.to_thread(server.kill)
            with pytest.raises(RedisUnavailableError):
                await UsageStreams(client, consumer="x").read(SHARDS, count=1, block_s=0.01)
            await asyncio.to_thread(server.start)
            await append(client, raw(2))
            await eventually(lambda: _has(2))


async def test_postgres_killed_and_restarted_loses_and_repeats_nothing(client, tmp_path):
    with Postgres(tmp_path, fsync=False) as server:
        await servers.make_template(server)
        await servers.connect(await servers.copy_of_template(server))
        try:
            async with running(drain_of(client, "a"), drain_of(client, "b")):
                await append(client, *(raw(number) for number in range(300)))
                await eventually(lambda: _has(1))
                await asyncio.to_thread(server.kill)
                await append(client, *(raw(number) for number in range(300, 600)))
                held = await client.xlen(STREAM)
                assert held >= 300
                await asyncio.to_thread(server.start)
                await eventually(lambda: _all_recorded(600), timeout_s=30)
                await eventually(lambda: _is_empty(client))
            assert await count_of_audited() == 600
            await assert_sums_agree()
        finally:
            await engine.disconnect()


async def _all_recorded(count: int) -> bool:
    try:
        return await count_of_audited() >= count
    except (StoreUnavailableError, asyncpg.PostgresError):
        return False


async def test_several_replicas_record_each_event_once(database, redis, client):
    """Events of many tenants, some twice, drained by three replicas that steal from each other."""
    source = random.Random(7)
    tenants = [TenantId(str(uuid.UUID(int=source.getrandbits(128)))) for _ in range(12)]
    total = 1500
    raws = []
    for number in range(total):
        tenant = source.choice(tenants)
        key = str(uuid.uuid5(uuid.UUID(tenant), str(number % 3)))
        made = raw(number, tenant_id=tenant, key_id=key, day=source.choice(["20261121", "20261122"]))
        raws += [(tenant, made)] * source.choice([1, 1, 2])
    source.shuffle(raws)
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(connection.connect(redis.url, connect_timeout_s=2.0)) for _ in range(3)
        ]
        async with running(*(drain_of(each, f"replica-{n}", claim_idle_s=0.02) for n, each in enumerate(clients))):
            for tenant, made in raws:
                await client.xadd(keyspace.usage(keyspace.shard_of(tenant)), {"e": made})
            await eventually(lambda: _has(total), timeout_s=30)
            await eventually(lambda: _is_empty(client))
    assert await count_of_audited() == total
    assert await rows("SELECT * FROM control.dead_letters") == []
    await assert_sums_agree()


async def test_nothing_is_recorded_of_a_shard_while_its_counters_are_rebuilt(database, client):
    rebuilder = await asyncpg.connect(database, ssl=False)
    try:
        number = SHARDS.index(SHARD)
        await rebuilder.execute("SELECT pg_advisory_lock($1::int, $2::int)", ledger.SHARD_LOCKS, number)
        await append(client, raw(1))
        draining = asyncio.create_task(drain_of(client).drain(SHARDS))
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        await eventually(lambda: rebuilder.fetchval(waiting))
        assert await count_of_audited() == 0
        await rebuilder.execute("SELECT pg_advisory_unlock($1::int, $2::int)", ledger.SHARD_LOCKS, number)
        assert await draining == 1
    finally:
        await rebuilder.close()
    assert await count_of_audited() == 1


async def test_a_cluster_reads_each_shard_by_itself(database, client):
    streams = UsageStreams(client, consumer="a")
    drain = draining(streams, groups=[(SHARD,)])
    async with running(drain):
        await append(client, raw(1))
        await eventually(lambda: _has(1))


async def test_consumers_that_ended_are_forgotten_but_not_with_entries(database, client):
    await append(client, raw(1))
    idle, holding = UsageStreams(client, consumer="idle"), UsageStreams(client, consumer="holding")
    await holding.read([SHARD], count=1, block_s=0.001)
    await idle.read([SHARD], count=1, block_s=0.001)
    await asyncio.sleep(0.01)
    await idle.forget_consumers(SHARD, idle_s=0.001)
    names = {about["name"] for about in await client.xinfo_consumers(STREAM, USAGE_GROUP)}
    assert names == {b"holding"}


async def test_counters_are_charged_what_the_ledger_is_charged(database, client):
    """The rule of the control plane and the statement in Postgres are two ways to say one thing."""
    chance = random.Random(7)
    outcomes = ("completed", "crashed", "client_closed", "refused", "correction")
    raws = []
    for number in range(200):
        outcome = chance.choice(outcomes)
        sign = -1 if outcome == "correction" else 1
        fields = {
            "outcome": outcome,
            "day": chance.choice(["20261121", "20261120", "20261031"]),
            "key_id": ""
            if outcome == "correction" and chance.random() < 0.5
            else str(uuid.UUID(int=chance.randint(1, 3))),
            "tenant_id": str(uuid.UUID(int=chance.randint(1, 2))),
            "prompt_tokens": sign * chance.randint(0, 50),
            "completion_tokens": sign * chance.choice([0, 10]),
        }
        raws.append(raw(number, **fields))
    await append(client, *raws, *raws[:20])
    await drain_of(client).drain(SHARDS)
    await drain_of(client).drain(SHARDS)
    expected: Counter[CounterName] = Counter()
    for one in raws:
        for name, tokens in charged(row_of(one)):
            expected[name] += tokens
    found = {
        (f"{row['scope_kind'][0]}:{row['scope_id']}", row["period"]): row["total_tokens"]
        for row in await rows("SELECT * FROM gateway.budget_usage")
    }
    assert {name: tokens for name, tokens in found.items() if tokens} == {
        name: tokens for name, tokens in expected.items() if tokens
    }
