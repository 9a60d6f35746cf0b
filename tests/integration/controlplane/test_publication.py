"""Redis follows Postgres: in every order of writers, through outages, restarts and lost data."""

import asyncio
import datetime as dt
import itertools
import json
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis as RedisClient
from redis.exceptions import RedisError

from controlplane.core.keys import Key
from controlplane.errors import RedisUnavailableError
from controlplane.publish import connection
from controlplane.publish.fence import Fences
from controlplane.publish.redis_state import RebuildToken, RedisState
from controlplane.store import engine, outbox
from controlplane.tasks.publish import Reconciler
from deploy.local.ports import free_port
from deploy.local.redis import Redis
from neuronetz.admin.v1 import key_pb2 as k
from neuronetz.admin.v1 import publication_pb2, tenant_pb2
from neuronetz.state.v1 import state_pb2
from shared import apikey, keyspace
from shared.keyspace import SHARDS, KeyId, TenantId
from shared.records import ConfigRecord, KeyState
from tests.integration.controlplane.conftest import (
    DATAPLANE_TOKEN,
    PEPPER,
    Running,
    fresh_database,
    serving,
    settings_for,
)
from tests.integration.controlplane.test_metrics import scraped

TENANT = TenantId(str(uuid.uuid4()))
DIGEST = "ab" * 32


def a_key(version: int, state: KeyState = KeyState.ACTIVE) -> Key:
    return Key(
        id=KeyId("00000000-0000-0000-0000-000000000001"),
        tenant_id=TENANT,
        tenant="acme",
        prefix="nz_000000001",
        name="prod",
        version=version,
        state=state,
        created_at=dt.datetime(2026, 11, 21, tzinfo=dt.UTC),
    )


async def until(holds: Callable[[], Awaitable[Any]], timeout_s: float = 30.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not await holds():
            await asyncio.sleep(0.01)


@pytest.fixture
def state(client: RedisClient) -> RedisState:
    return RedisState(client, timeout_s=2, prompt_log_days=30)


async def stored(client: RedisClient, key: Key) -> tuple[Any, int]:
    raw = await client.get(keyspace.key_record(key.prefix))
    live = await client.hget(keyspace.live(keyspace.shard_of(key.tenant_id)), keyspace.key_scope(key.id))
    assert raw is not None
    assert live is not None
    return json.loads(raw), int(live)


async def test_no_order_of_publishers_brings_back_an_older_state(client, state):
    history = [a_key(1), a_key(2, KeyState.SUSPENDED), a_key(3, KeyState.REVOKED)]
    for order in itertools.permutations(history):
        await client.flushall()
        for key in order:
            await state.write_key(key, digest=DIGEST if key.version == 1 else None)
        record, live = await stored(client, history[0])
        assert (record["version"], record["state"], live) == (3, "revoked", -3)
        assert record["digest"] == DIGEST, order


async def test_publishing_again_keeps_the_digest_and_large_numbers(client, state):
    limits = msgspec.structs.replace(a_key(1).limits, budget_total=123_456_789_012)
    key = msgspec.structs.replace(a_key(1), limits=limits)
    await state.write_key(key, digest=DIGEST)
    await state.write_key(msgspec.structs.replace(key, version=2))
    record, live = await stored(client, key)
    assert (record["digest"], record["limits"]["budget_total"], live) == (DIGEST, 123_456_789_012, 2)


async def test_a_record_that_cannot_be_read_is_replaced(client, state):
    await client.set(keyspace.key_record("nz_000000001"), b"\xffnot json")
    await state.write_key(a_key(1))
    assert (await stored(client, a_key(1)))[0]["version"] == 1
    assert (await state.read_key("nz_000000001")) is not None


async def test_an_older_revision_of_the_backends_changes_nothing(client, state):
    await state.write_config(ConfigRecord(revision=2))
    await state.write_config(ConfigRecord(revision=1))
    config = await state.read_config()
    assert config is not None
    assert config.revision == 2


async def test_a_redis_that_is_away_is_said_so(tmp_path):
    with Redis(tmp_path) as server:
        url = server.url
    async with connection.connect(url, connect_timeout_s=0.5) as client:
        state = RedisState(client, timeout_s=0.5, prompt_log_days=30)
        for attempt in (
            state.ping(),
            state.write_key(a_key(1)),
            state.read_config(),
            Fences(client, timeout_s=0.5).server(),
        ):
            with pytest.raises(RedisUnavailableError):
                await attempt


async def test_a_stamp_needs_the_token_and_no_valid_fence(client):
    fences = Fences(client, timeout_s=2)
    shard = SHARDS[3]
    incarnation = (await fences.server()).incarnation
    first = await fences.begin([shard], incarnation)
    second = await fences.begin([shard], incarnation)
    assert not await fences.stamp(shard, first)
    await client.flushall()
    assert not await fences.stamp(shard, second)
    third = await fences.begin([shard], incarnation)
    assert await fences.stamp(shard, third)
    assert shard not in await fences.missing(incarnation)
    assert not await fences.stamp(shard, await fences.begin([shard], incarnation))
    assert await fences.missing("another:run:") == SHARDS


async def test_rebuilt_versions_need_the_token(client, state):
    fences = Fences(client, timeout_s=2)
    shard = keyspace.shard_of(TENANT)
    token = await fences.begin([shard], "run:replication:")
    assert await state.write_keys([a_key(1)], token=token)
    await client.flushall()
    assert not await state.write_keys([a_key(1)], token=token)
    assert await client.hlen(keyspace.live(shard)) == 0
    assert not await state.write_keys([a_key(1)], token=RebuildToken(value="guessed", incarnation="run:replication:"))


async def minted(gateway: Running) -> Any:
    await gateway.call(gateway.tenants.CreateTenant, tenant_pb2.CreateTenantRequest(name="acme"))
    return await gateway.call(gateway.keys.CreateKey, k.CreateKeyRequest(tenant="acme", name="prod"))


async def fenced(client: RedisClient, incarnation: str | None = None) -> bool:
    fences = Fences(client, timeout_s=2)
    return not await fences.missing(incarnation or (await fences.server()).incarnation)


async def test_flushall_is_made_good_and_a_cold_key_is_verified(gateway, client):
    created = await minted(gateway)
    await gateway.call(gateway.keys.CreateKey, k.CreateKeyRequest(tenant="acme", name="gone"))
    gone = (await gateway.call(gateway.keys.ListKeys, k.ListKeysRequest())).keys[1]
    await gateway.call(gateway.keys.RevokeKey, k.RevokeKeyRequest(prefix=gone.prefix))
    await until(lambda: fenced(client))
    epoch = int((await client.get(keyspace.fence(SHARDS[0]))).rsplit(b":", 1)[1])
    await client.flushall()
    await until(lambda: fenced(client))
    assert int((await client.get(keyspace.fence(SHARDS[0]))).rsplit(b":", 1)[1]) > epoch
    shard = keyspace.shard_of(TenantId(created.key.tenant_id))
    live = await client.hgetall(keyspace.live(shard))
    assert live == {
        f"t:{created.key.tenant_id}".encode(): b"1",
        f"k:{created.key.id}".encode(): b"1",
        f"k:{gone.id}".encode(): b"-2",
    }
    record = json.loads(await client.get(keyspace.key_record(created.prefix)))
    assert "digest" not in record
    answer = await gateway.call(
        gateway.verifier.Verify, state_pb2.VerifyRequest(api_key=created.api_key), token=DATAPLANE_TOKEN
    )
    assert answer.verdict == state_pb2.VerifyResponse.VERDICT_MATCH
    record = json.loads(await client.get(keyspace.key_record(created.prefix)))
    assert record["digest"] == apikey.digest(PEPPER.encode(), created.api_key)
    await until(lambda: client.exists(keyspace.CONFIG))


async def test_a_row_of_the_outbox_that_nobody_published_is_published(gateway, client):
    created = await minted(gateway)
    await client.delete(keyspace.key_record(created.prefix))
    async with engine.transaction() as open_transaction:
        await outbox.enqueue(open_transaction, outbox.OutboxKind.KEY, uuid.UUID(created.key.id), 1)
    await until(lambda: client.exists(keyspace.key_record(created.prefix)))
    await until(none_pending)


async def none_pending() -> bool:
    return await outbox.pending() == 0


async def test_without_redis_a_change_is_pending_and_goes_out_later(tmp_path, postgres_server):
    with Redis(tmp_path) as server:
        port = free_port()
        settings = settings_for(
            await fresh_database(postgres_server),
            server.url,
            GATEWAY_PUBLISH_TIMEOUT_S="0.5",
            GATEWAY_METRICS_BIND=f"127.0.0.1:{port}",
        )
        async with serving(settings) as gateway, connection.connect(server.url, connect_timeout_s=1) as client:
            created = await minted(gateway)
            await until(lambda: fenced(client))
            before = (await Fences(client, timeout_s=2).server()).incarnation
            server.stop()
            revoked = await gateway.call(gateway.keys.RevokeKey, k.RevokeKeyRequest(prefix=created.prefix))
            assert revoked.publication == publication_pb2.PUBLICATION_PENDING
            await until_unready(gateway)

            async def waits(count: int) -> bool:
                return (await scraped(port))["gateway_publications_pending"] == count

            await until(lambda: waits(1))
            server.start()
            shard = keyspace.shard_of(TenantId(created.key.tenant_id))

            async def applied() -> bool:
                try:
                    return await client.hget(keyspace.live(shard), keyspace.key_scope(KeyId(created.key.id))) == b"-2"
                except RedisError:
                    return False

            await until(applied)
            await until(lambda: waits(0))
            # Restarted with its data: fenced anew, and the digest is still there.
            await until(lambda: fenced(client))
            assert (await Fences(client, timeout_s=2).server()).incarnation != before
            raw = await client.get(keyspace.key_record(created.prefix))
            record = json.loads(raw or b"{}")
            assert (record["state"], "digest" in record) == ("revoked", True)


async def test_a_redis_that_may_lose_data_is_never_declared_rebuilt(tmp_path, postgres_server):
    with Redis(tmp_path, settings={"appendonly": "no"}) as server:
        settings = settings_for(await fresh_database(postgres_server), server.url)
        async with serving(settings) as gateway, connection.connect(server.url, connect_timeout_s=1) as client:
            fences = Fences(client, timeout_s=2)
            assert (await fences.server()).problems == ("redis has no append-only file",)
            # Long enough for a whole round: a commit is published while no shard is stamped.
            await minted(gateway)
            assert await fences.missing((await fences.server()).incarnation) == SHARDS
            await client.config_set("appendonly", "yes")
            await until(lambda: fenced(client))


async def test_two_control_planes_rebuild_and_publish_together(settings, client):
    async with serving(settings) as first, serving(settings) as second:
        created = await minted(first)
        for _ in range(3):
            await client.flushall()
            await until(lambda: fenced(client))
        revoked = await second.call(second.keys.RevokeKey, k.RevokeKeyRequest(prefix=created.prefix))
        assert revoked.publication == publication_pb2.PUBLICATION_APPLIED
        shard = keyspace.shard_of(TenantId(created.key.tenant_id))
        assert await client.hget(keyspace.live(shard), keyspace.key_scope(KeyId(created.key.id))) == b"-2"


async def until_unready(gateway: Running) -> None:
    async def unready() -> bool:
        return gateway.plane.readiness.failing == ("redis",)

    await until(unready)


async def test_replicas_with_different_static_backends_leave_each_other_alone(postgres_server, redis, client, state):
    database = await fresh_database(postgres_server)
    one, two = (
        settings_for(database, redis.url, OLLAMA_BACKENDS=json.dumps([{"name": name, "url": "http://127.0.0.1:1"}]))
        for name in ("one", "two")
    )

    async def names() -> list[str]:
        config = await state.read_config()
        return [] if config is None else [backend.name for backend in config.backends]

    async with serving(one) as first:
        await until(lambda: _is(names, ["one"]))
        async with serving(two):
            await until(lambda: _is(names, ["two"]))
            config = await state.read_config()
            assert config is not None
            for static in (False, False):
                assert not await reconciled(first, static=static)
            assert await names() == ["two"]
            # What Redis lost altogether is written by whoever sees it first.
            await client.delete(keyspace.CONFIG)
            assert await reconciled(first, static=False)
            assert await names() == ["one"]


async def reconciled(gateway: Running, *, static: bool) -> bool:
    (reconciler,) = [worker for worker in gateway.plane._workers if isinstance(worker, Reconciler)]
    return await reconciler._publisher.reconcile_config(static=static)


async def _is(names: Callable[[], Awaitable[list[str]]], wanted: list[str]) -> bool:
    return await names() == wanted


async def test_a_redis_that_may_run_ahead_of_its_replicas_is_not_declared_rebuilt(tmp_path):
    with Redis(tmp_path / "primary") as primary, Redis(tmp_path / "replica") as replica:
        password = primary.url.split(":")[2].split("@")[0]
        async with (
            connection.connect(primary.url, connect_timeout_s=1) as client,
            connection.connect(replica.url, connect_timeout_s=1) as other,
        ):
            fences = Fences(client, timeout_s=2)
            assert (await fences.server()).problems == ()
            await other.config_set("masterauth", password)
            await other.replicaof("127.0.0.1", primary.port)

            async def seen() -> bool:
                return bool((await fences.server()).problems)

            await until(seen)
            assert (await fences.server()).problems == ("redis has replicas but no min-replicas-to-write",)
            assert (await Fences(other, timeout_s=2).server()).problems == ("redis is a replica",)
            await client.config_set("min-replicas-to-write", 1)
            assert (await fences.server()).problems == ()
