"""How long logs are kept."""

from __future__ import annotations

import asyncio
import datetime as dt

import asyncpg
import pytest

from controlplane.errors import StoreUnavailableError
from controlplane.metrics import Metrics
from controlplane.publish.usage_stream import UsageStreams
from controlplane.store import engine, retention
from controlplane.tasks.drain_usage import UsageDrain
from controlplane.tasks.guard import Touched
from controlplane.tasks.retain import Retention
from shared.clock import SystemClock
from shared.keyspace import SHARDS
from tests.integration.ledger.events import append, raw


async def record(client, *raws: bytes) -> None:
    await append(client, *raws)
    await UsageDrain(
        streams=UsageStreams(client, consumer="a"), clock=SystemClock(), metrics=Metrics(), touched=Touched()
    ).drain(SHARDS)


async def events(table: str) -> list[str]:
    async with engine.connection() as held:
        return [row[0] for row in await held.fetch(f"SELECT event_id FROM gateway.{table} ORDER BY event_id")]


async def partitions(parent: str) -> set[str]:
    async with engine.connection() as held:
        rows = await held.fetch(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = $1::regclass", f"gateway.{parent}"
        )
        return {row[0] for row in rows}


def text(day: dt.date) -> str:
    return f"{day:%Y%m%d}"


async def test_audit_rows_are_kept_for_their_days_and_not_longer(database, client):
    today = await retention.today()
    kept, gone = today - dt.timedelta(days=30), today - dt.timedelta(days=31)
    await record(client, raw(1, day=text(today)), raw(2, day=text(kept)), raw(3, day=text(gone)))
    await Retention(audit_log_days=30).retain(today)
    assert await events("audit_log") == ["event-1", "event-2"]
    assert f"gateway.audit_log_{text(gone)}" not in await partitions("audit_log")


async def test_what_was_used_outlives_the_rows_that_it_came_from(database, client):
    today = await retention.today()
    await record(client, raw(3, day=text(today - dt.timedelta(days=400))))
    await Retention(audit_log_days=365).retain(today)
    assert await events("audit_log") == []
    async with engine.connection() as held:
        assert await held.fetchval("SELECT total_tokens FROM gateway.budget_usage WHERE period = 'total' LIMIT 1") == 13


async def test_prompts_end_key_by_key(database, client):
    today = await retention.today()
    old = text(today - dt.timedelta(days=10))
    await record(
        client,
        raw(1, day=old, prompt="a", prompt_log_days=9),
        raw(2, day=old, prompt="b", prompt_log_days=10),
        raw(3, day=old, prompt="c", prompt_log_days=11),
        raw(4, day=text(today), prompt="d", prompt_log_days=1),
    )
    await Retention(audit_log_days=365).retain(today)
    assert await events("prompt_log") == ["event-3", "event-4"]
    await Retention(audit_log_days=365).retain(today + dt.timedelta(days=1))
    assert await events("prompt_log") == []
    assert f"gateway.prompt_log_{old}" not in await partitions("prompt_log")
    assert len(await events("audit_log")) == 4


async def test_partitions_are_made_ahead_and_an_event_of_a_dropped_day_is_taken_all_the_same(database, client):
    today = await retention.today()
    await Retention(audit_log_days=1).retain(today)
    wanted = {f"gateway.audit_log_{text(today + dt.timedelta(days=n))}" for n in range(-1, 8)}
    assert await partitions("audit_log") == wanted
    await record(client, raw(1, day=text(today - dt.timedelta(days=5))))
    assert await events("audit_log") == ["event-1"]


async def test_many_prompts_are_deleted_in_parts(database, client, monkeypatch):
    monkeypatch.setattr(retention, "_DELETE_BATCH", 7)
    today = await retention.today()
    old = text(today - dt.timedelta(days=5))
    await record(client, *(raw(number, day=old, prompt="x", prompt_log_days=1) for number in range(30)))
    assert await retention.delete_prompts(on=today) == 30


async def test_a_partition_that_is_being_read_is_dropped_later(database, client, monkeypatch):
    monkeypatch.setattr(retention, "_LOCK_TIMEOUT", "50ms")
    today = await retention.today()
    old = today - dt.timedelta(days=50)
    await record(client, raw(1, day=text(old)))
    reader = await asyncpg.connect(database, ssl=False)
    try:
        async with reader.transaction():
            await reader.fetch("SELECT * FROM gateway.audit_log")
            with pytest.raises(StoreUnavailableError):
                await Retention(audit_log_days=30).retain(today)
        await Retention(audit_log_days=30).retain(today)
    finally:
        await reader.close()
    assert await events("audit_log") == []


async def test_two_replicas_may_do_it_at_once(database, client):
    today = await retention.today()
    await record(client, *(raw(number, day=text(today - dt.timedelta(days=40 + number))) for number in range(5)))
    for _ in range(2):
        await asyncio.gather(*(Retention(audit_log_days=30).retain(today) for _ in range(3)))
    assert await events("audit_log") == []


async def test_it_is_done_at_the_start(database, client):
    today = await retention.today()
    await record(client, raw(1, day=text(today - dt.timedelta(days=40))))
    task = asyncio.create_task(Retention(audit_log_days=30, check_every_s=0.05).run())
    async with asyncio.timeout(30):
        while await events("audit_log"):
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_prompt_that_comes_when_its_time_is_over_does_not_stay_until_the_next_day(database, client):
    today = await retention.today()
    task = asyncio.create_task(Retention(audit_log_days=30, check_every_s=0.05).run())
    async with asyncio.timeout(30):
        while f"gateway.audit_log_{text(today + dt.timedelta(days=7))}" not in await partitions("audit_log"):
            await asyncio.sleep(0.01)
        await record(client, raw(1, day=text(today - dt.timedelta(days=3)), prompt="late", prompt_log_days=2))
        while await events("prompt_log"):
            await asyncio.sleep(0.01)
    assert await events("audit_log") == ["event-1"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
