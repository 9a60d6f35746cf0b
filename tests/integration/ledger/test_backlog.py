"""Deny mode: what waits for the ledger is bounded, and the bound holds nobody longer than it must."""

from __future__ import annotations

import asyncio

import pytest

from controlplane.errors import RedisUnavailableError
from controlplane.metrics import Metrics
from controlplane.publish.usage_stream import BacklogState
from controlplane.tasks.backlog import BacklogWatch
from shared import keyspace
from shared.keyspace import SHARD_COUNT, SHARDS
from tests.integration.ledger.events import SHARD, append, raw
from tests.integration.ledger.test_drain import drain_of

MAX_SHARD_BYTES = 100_000


def watch_of(client, *, timeout_s: float = 2.0) -> tuple[BacklogWatch, Metrics]:
    metrics = Metrics()
    state = BacklogState(client, timeout_s=timeout_s)
    return BacklogWatch(state=state, max_bytes=MAX_SHARD_BYTES * SHARD_COUNT, metrics=metrics, every_s=0.02), metrics


async def denying(client) -> list[str]:
    return [shard for shard in SHARDS if await client.exists(keyspace.deny(shard))]


async def test_a_shard_denies_while_its_events_have_too_many_bytes_and_no_other_does(database, client):
    watch, metrics = watch_of(client)
    await append(client, *(raw(number, prompt="x" * 10_000, prompt_log_days=1) for number in range(20)))
    await watch.look()
    assert await denying(client) == [SHARD]
    values = metrics.registry.get_sample_value
    assert values("gateway_usage_events_waiting") == 20
    assert 200_000 < (values("gateway_usage_bytes_waiting") or 0) < 400_000
    assert values("gateway_shards_denying") == 1
    await drain_of(client).drain(SHARDS)
    await watch.look()
    assert await denying(client) == []
    assert values("gateway_usage_bytes_waiting") == 0


async def test_many_small_events_do_not_deny(database, client):
    watch, _ = watch_of(client)
    await append(client, *(raw(number) for number in range(50)))
    await watch.look()
    assert await denying(client) == []


async def test_it_ends_by_itself_and_a_flag_of_an_old_snapshot_too(database, client):
    watch, _ = watch_of(client)
    for shard in SHARDS:
        await client.set(keyspace.deny(shard), "bytes")
    task = asyncio.create_task(watch.run())
    async with asyncio.timeout(30):
        while await denying(client):
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_without_redis_it_goes_on_trying(client):
    watch, _ = watch_of(client, timeout_s=0.0)
    with pytest.raises(RedisUnavailableError):
        await watch.look()
    task = asyncio.create_task(watch.run())
    await asyncio.sleep(0.05)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
