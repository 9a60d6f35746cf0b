"""Failed authentications reach the audit log, and can fill nothing that serves others."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from controlplane.core.usage import UsageEventError, anonymous_row_of
from controlplane.errors import RedisUnavailableError, StoreUnavailableError
from controlplane.metrics import Metrics
from controlplane.publish.anonymous_stream import AnonymousStream
from controlplane.publish.usage_stream import BacklogState
from controlplane.store import engine
from controlplane.tasks.backlog import BacklogWatch
from controlplane.tasks.drain_anonymous import AnonymousDrain
from shared import keyspace, records
from shared.keyspace import ANONYMOUS, SHARDS, USAGE_GROUP
from shared.records import AnonymousFailures
from tests.integration.ledger.events import CREATED_MS


def failures(block: str = "192.0.2.1", reason: str = "unknown", occurrences: int = 3) -> bytes:
    return records.encode(AnonymousFailures(at_ms=CREATED_MS, block=block, reason=reason, occurrences=occurrences))


def drain_of(client, consumer: str = "a", *, claim_idle_s: float = 0.0) -> AnonymousDrain:
    stream = AnonymousStream(client, consumer=consumer)
    return AnonymousDrain(stream=stream, metrics=Metrics(), every_s=0.02, claim_idle_s=claim_idle_s)


async def rows() -> list[dict]:
    async with engine.connection() as held:
        return [dict(row) for row in await held.fetch("SELECT * FROM gateway.audit_log ORDER BY event_id")]


async def add(client, *raws: bytes) -> None:
    for raw in raws:
        await client.xadd(ANONYMOUS, {"e": raw}, maxlen=10_000, approximate=True)


async def drained(drain: AnonymousDrain) -> None:
    # The first round makes the group.
    while await drain.drain() == 0:
        await asyncio.sleep(0)


async def test_counted_failures_become_audit_rows_without_tenant_and_key(database, client):
    await add(client, failures(), failures("2001:db8::/64", "throttled", 5000))
    await drained(drain_of(client))
    first, second = await rows()
    assert (first["tenant_id"], first["key_id"], first["client_ip"]) == (None, None, "192.0.2.1")
    assert (first["status"], first["outcome"], first["refusal"], first["occurrences"]) == (401, "refused", "unknown", 3)
    assert first["created_at"].timestamp() * 1000 == CREATED_MS
    assert (second["status"], second["occurrences"], second["client_ip"]) == (429, 5000, "2001:db8::/64")
    assert await client.xlen(ANONYMOUS) == 0
    async with engine.connection() as held:
        assert await held.fetchval("SELECT count(*) FROM gateway.budget_usage") == 0


async def test_a_crash_before_the_acknowledgement_records_once(database, client):
    await add(client, failures())
    dead = AnonymousStream(client, consumer="dead")
    assert await dead.read(count=10) == []
    (entry,) = await dead.read(count=10)
    await drained(drain_of(client, "alive"))
    assert len(await rows()) == 1
    await client.xadd(ANONYMOUS, {"e": entry.raw or b""})
    await drained(drain_of(client, "alive"))
    assert len(await rows()) == 2


async def test_what_is_no_record_is_buried(database, client):
    await add(client, b"{", failures())
    await client.xadd(ANONYMOUS, {"x": "y"})
    await drained(drain_of(client))
    assert len(await rows()) == 1
    async with engine.connection() as held:
        letters = await held.fetch("SELECT shard FROM control.dead_letters")
    assert [letter["shard"] for letter in letters] == ["anonymous", "anonymous"]


@pytest.mark.parametrize("fields", [{"at_ms": -1}, {"at_ms": 10**18}, {"at_ms": 0}, {"occurrences": 0}, {"block": 5}])
def test_absurd_counts_are_refused(fields):
    raw = msgspec.json.encode(msgspec.json.decode(failures()) | fields)
    with pytest.raises(UsageEventError):
        anonymous_row_of("1-0", raw)


async def test_a_flood_neither_fills_the_usage_streams_nor_denies(database, client):
    async with client.pipeline(transaction=False) as pipe:
        for number in range(20_000):
            pipe.xadd(ANONYMOUS, {"e": failures(f"10.0.{number % 256}.{number // 256}")}, maxlen=1000, approximate=True)
        await pipe.execute()
    assert await client.xlen(ANONYMOUS) < 1200
    watch = BacklogWatch(state=BacklogState(client, timeout_s=2), max_bytes=16, metrics=Metrics())
    await watch.look()
    assert not [shard for shard in SHARDS if await client.exists(keyspace.deny(shard), keyspace.usage(shard))]
    drain = drain_of(client)
    await drained(drain)
    while await drain.drain():
        pass
    assert await client.xlen(ANONYMOUS) == 0
    assert 1000 <= len(await rows()) < 1200


async def test_while_postgres_is_away_they_wait(database, client):
    await add(client, failures())
    await engine.disconnect()
    drain = drain_of(client)
    await drain.drain()
    with pytest.raises(StoreUnavailableError):
        await drain.drain()
    task = asyncio.create_task(drain.run())
    await engine.connect(database, pool_size=2, pool_overflow=2)
    async with asyncio.timeout(30):
        while not await rows():
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_without_redis_it_says_so_and_old_consumers_are_forgotten(database, client):
    with pytest.raises(RedisUnavailableError):
        await AnonymousStream(client, consumer="a", timeout_s=0.0).read(count=1)
    await drain_of(client, "old").drain()
    stream = AnonymousStream(client, consumer="new")
    await stream.read(count=1)
    await client.xgroup_createconsumer(ANONYMOUS, USAGE_GROUP, "idle")
    await asyncio.sleep(0.01)
    await stream.forget_consumers(idle_s=0.001)
    assert await client.xinfo_consumers(ANONYMOUS, USAGE_GROUP) == []
