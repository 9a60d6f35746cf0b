"""The registry of workers in Redis."""

import json

import pytest
from redis.asyncio import Redis as RedisClient

from controlplane.core.replicas import ReplicaRecord
from controlplane.errors import RedisUnavailableError
from controlplane.publish import connection
from controlplane.publish.replicas import KEPT_S, LIVE_S, Replicas
from deploy.local.redis import Redis
from shared import keyspace


@pytest.fixture
def replicas(client: RedisClient) -> Replicas:
    return Replicas(client, timeout_s=1.0)


async def age(client: RedisClient, worker_id: str, by_s: float) -> None:
    """Lets the worker have been heard of longer ago."""
    raw = await client.hget(keyspace.REPLICAS, worker_id)
    assert raw is not None
    entry = json.loads(raw)
    entry["seen_at_ms"] -= round(by_s * 1000)
    # The stamp is the last field, and the script finds it there.
    await client.hset(keyspace.REPLICAS, worker_id, json.dumps(entry, separators=(",", ":")))


async def test_what_was_reported_is_read_with_the_time_of_redis(client, replicas):
    record = ReplicaRecord(
        worker_id="w",
        address="host:1",
        version="1.2",
        pid=7,
        revision=2**53 - 1,
        rejected='3: "quoted"}',
        in_flight=4,
        ready=True,
        control_plane="c",
        streams_cut={1: 2, 2: 0},
    )
    await replicas.report(record)
    (read,) = await replicas.live()
    seconds, _ = await client.time()
    assert 0 <= seconds - read.seen_at_ms // 1000 <= 2
    assert {name: getattr(read, name) for name in ReplicaRecord.__struct_fields__ if name != "seen_at_ms"} == {
        name: getattr(record, name) for name in ReplicaRecord.__struct_fields__ if name != "seen_at_ms"
    }


async def test_workers_come_in_the_order_of_their_addresses(replicas):
    await replicas.report(*(ReplicaRecord(worker_id=f"w{n}", address=f"host:{9 - n % 3}") for n in range(150)))
    found = await replicas.live()
    assert len(found) == 150
    assert found == sorted(found, key=lambda record: (record.address, record.worker_id))


async def test_a_worker_that_fell_silent_is_not_live_and_is_dropped_later(client, replicas):
    await replicas.report(*(ReplicaRecord(worker_id=name) for name in ("fresh", "silent", "gone")))
    await age(client, "silent", LIVE_S + 1)
    await age(client, "gone", KEPT_S + 1)
    assert [record.worker_id for record in await replicas.live()] == ["fresh"]
    await replicas.report(ReplicaRecord(worker_id="fresh"))
    assert set(await client.hkeys(keyspace.REPLICAS)) == {b"fresh", b"silent"}


async def test_a_worker_that_has_ended_is_forgotten(replicas):
    await replicas.report(ReplicaRecord(worker_id="w"))
    await replicas.forget("w")
    await replicas.forget("w")
    assert await replicas.live() == []


async def test_entries_that_cannot_be_read_are_passed_over_and_dropped(client, replicas):
    await client.hset(keyspace.REPLICAS, "odd", b"\xff{")
    assert await replicas.live() == []
    await replicas.report(ReplicaRecord(worker_id="w"))
    assert await client.hkeys(keyspace.REPLICAS) == [b"w"]


async def test_a_registry_that_is_away_says_so(tmp_path):
    with Redis(tmp_path) as server:
        url = server.url
    async with connection.connect(url, connect_timeout_s=0.5) as client:
        away = Replicas(client, timeout_s=0.5)
        for attempt in (away.report(ReplicaRecord(worker_id="w")), away.forget("w"), away.live()):
            with pytest.raises(RedisUnavailableError):
                await attempt
