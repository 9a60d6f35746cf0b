"""Whole control planes: what operators change reaches every worker, whichever control plane each of them watches."""

import asyncio
import contextlib
import os
import signal
import time
import uuid
from typing import Any

import grpc
import pytest

from controlplane.config import Settings
from controlplane.core.changes import Change, ChangeKind
from controlplane.errors import RedisUnavailableError
from controlplane.publish import connection
from controlplane.publish.replicas import Replicas
from controlplane.store import engine
from controlplane.watch.hub import Hub
from deploy.local.redis import Redis
from neuronetz.admin.v1 import backend_pb2, backend_pb2_grpc, publication_pb2
from neuronetz.admin.v1 import key_pb2 as k
from neuronetz.admin.v1 import tenant_pb2 as t
from shared import keyspace, logs
from tests.fakes.waiting import until
from tests.integration.controlplane import test_process
from tests.integration.controlplane.conftest import (
    DATAPLANE_TOKEN,
    VIEWER_TOKEN,
    Running,
    fresh_database,
    serving,
    settings_for,
)
from tests.integration.hubs import hub_over
from tests.integration.watch.conftest import RawStream, Replica, Served, eventually, record_of, watching

# A hundred at a time limit of ten, each given a snapshot of its own: on a quiet machine it takes two seconds.
SOON_S = 25.0
log = logs.get(__name__)


@pytest.fixture
async def settings(postgres_server, redis):
    return settings_for(await fresh_database(postgres_server), redis.url)


@pytest.fixture
async def gateway(settings):
    async with serving(settings) as running:
        await until(lambda: hub_of(running).is_ready)
        yield running


def hub_of(gateway: Running) -> Hub:
    (hub,) = [worker for worker in gateway.plane._workers if isinstance(worker, Hub)]
    return hub


def address_of(gateway: Running) -> str:
    return f"127.0.0.1:{gateway.plane.port}"


def process_of(settings: Settings, **more: str) -> contextlib.AbstractAsyncContextManager[test_process.Process]:
    return test_process.running(settings, GATEWAY_DATAPLANE_TOKEN=DATAPLANE_TOKEN, **more)


async def minted(gateway: Running) -> Any:
    name = f"acme-{uuid.uuid4().hex[:8]}"
    await gateway.call(gateway.tenants.CreateTenant, t.CreateTenantRequest(name=name))
    return await gateway.call(gateway.keys.CreateKey, k.CreateKeyRequest(tenant=name, name="prod"))


async def test_whatever_operators_do_to_keys_and_tenants_is_told(gateway):
    created = await minted(gateway)
    key, tenant = created.key.id, created.key.tenant_id
    async with watching(replica := Replica([address_of(gateway)])):
        for method, request, subject, version in (
            (gateway.keys.UpdateKey, k.UpdateKeyRequest(prefix=created.prefix, clear=["rpm"]), key, (1, False)),
            (gateway.keys.SuspendKey, k.SuspendKeyRequest(prefix=created.prefix), key, (2, True)),
            (gateway.keys.ResumeKey, k.ResumeKeyRequest(prefix=created.prefix), key, (3, False)),
            (gateway.tenants.SuspendTenant, t.SuspendTenantRequest(tenant=created.key.tenant), tenant, (2, True)),
            (gateway.tenants.ResumeTenant, t.ResumeTenantRequest(tenant=created.key.tenant), tenant, (3, False)),
            (gateway.keys.RotateKey, k.RotateKeyRequest(prefix=created.prefix), key, (4, True)),
        ):
            await gateway.call(method, request)
            await until(lambda s=subject, v=version: v in replica.learnt.versions(s))  # type: ignore[misc]


async def test_backends_and_discovered_models_are_told(gateway):
    async with watching(replica := Replica([address_of(gateway)])):
        backends: Any = backend_pb2_grpc.BackendServiceStub(gateway.channel)
        await gateway.call(
            backends.AddBackend, backend_pb2.AddBackendRequest(name="added", url="http://127.0.0.1:1", no_validate=True)
        )
        await until(lambda: any(b'"added"' in change.config for change in replica.learnt.changes))


async def test_a_row_of_the_outbox_is_told_like_any_change(gateway):
    created = await minted(gateway)
    async with watching(replica := Replica([address_of(gateway)])):
        async with engine.connection() as connection:
            await connection.execute(
                "INSERT INTO gateway.revocations (key_id, reason) VALUES ($1, 'leaked')", uuid.UUID(created.key.id)
            )
        await until(lambda: (2, True) in replica.learnt.versions(created.key.id))


async def test_nobody_but_a_data_plane_may_watch(gateway):
    async with RawStream(address_of(gateway), token=VIEWER_TOKEN) as stream:
        await stream.hello()
        assert await stream.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_hundred_workers_that_reconnect_at_once_are_all_up_to_date_soon(gateway):
    """Once with a revision that is still known, once without: then each needs a snapshot, few at a time."""
    hub = hub_of(gateway)
    await minted(gateway)
    await until(lambda: hub.revision > 1)
    for revision in (hub.revision, 0):
        replicas = [Replica([address_of(gateway)], revision=revision) for _ in range(100)]
        before, started_s = hub.snapshots.most_in_flight, time.monotonic()
        async with contextlib.AsyncExitStack() as stack:
            for replica in replicas:
                await stack.enter_async_context(replica.watching())
            created = await minted(gateway)
            await gateway.call(gateway.keys.RevokeKey, k.RevokeKeyRequest(prefix=created.prefix))
            await until(lambda: all(one.revision >= hub.revision > 1 for one in replicas), timeout_s=30)  # noqa: B023
            took_s = time.monotonic() - started_s
            given = sum(len(one.learnt.snapshots) for one in replicas)
            log.info("workers_up_to_date", workers=100, after_s=took_s, snapshots=given)
            assert given == (0 if revision else 100)
            assert hub.snapshots.most_in_flight <= 10 if not revision else hub.snapshots.most_in_flight == before
            assert took_s < SOON_S


async def test_two_control_planes_tell_the_same_in_the_same_order(client, database):
    async with Served(client).serving() as one, Served(client).serving() as two:
        async with watching(here := Replica([one.address]), there := Replica([two.address])):
            await asyncio.gather(
                *(
                    hub.announce(Change(kind=ChangeKind.KEY, id=f"{number}", version=1))
                    for number in range(100)
                    for hub in (one.hub, two.hub)
                )
            )
            await until(lambda: len(here.learnt.changes) == len(there.learnt.changes) == 200)
        told = [change.revision for change in here.learnt.changes]
        assert told == [change.revision for change in there.learnt.changes] == sorted(set(told))
        assert one.hub.revision == two.hub.revision == told[-1]


async def test_a_worker_goes_on_with_another_control_plane_at_once_when_one_stops(settings):
    async with contextlib.AsyncExitStack() as stack:
        stopped = await stack.enter_async_context(
            test_process.running(settings, GATEWAY_DATAPLANE_TOKEN=DATAPLANE_TOKEN)
        )
        other = await stack.enter_async_context(test_process.running(settings, GATEWAY_DATAPLANE_TOKEN=DATAPLANE_TOKEN))
        for process in (stopped, other):
            await process.until("watch_ready")
        replicas = [Replica([stopped.address, other.address]) for _ in range(10)]
        async with watching(*replicas):
            # Who has just started may be a revision behind; whoever comes to it from ahead needs a snapshot.
            await until(lambda: len({one.revision for one in replicas}) == 1)
            os.kill(stopped.process.pid, signal.SIGTERM)
            await stopped.process.wait()
            started_s = time.monotonic()
            await until(lambda: all(one.watch.is_current for one in replicas), timeout_s=30)
            log.info("workers_moved", after_s=time.monotonic() - started_s)
            assert sum(len(one.learnt.snapshots) for one in replicas) == len(replicas)


async def test_a_worker_of_a_control_plane_that_was_killed_hears_of_changes_from_another(settings):
    async with serving(settings) as other, process_of(settings) as killed:
        await killed.until("watch_ready")
        await until(lambda: hub_of(other).is_ready)
        created = await minted(other)
        replicas = [Replica([killed.address, address_of(other)]) for _ in range(6)]
        async with watching(*replicas):
            killed.process.kill()
            await killed.process.wait()
            await other.call(other.keys.RevokeKey, k.RevokeKeyRequest(prefix=created.prefix))
            await until(lambda: len(hub_of(other)._watchers) == 6, timeout_s=30)
            revision = hub_of(other).revision
            await until(lambda: all(one.revision >= revision for one in replicas), timeout_s=30)
            # Each was told, by the stream or as what it had missed; none needed a snapshot for it.
            assert all((2, True) in one.learnt.versions(created.key.id) for one in replicas)


async def test_without_redis_a_revocation_is_pending_and_told_by_every_control_plane(tmp_path, postgres_server):
    with Redis(tmp_path) as server:
        settings = settings_for(await fresh_database(postgres_server), server.url, GATEWAY_PUBLISH_TIMEOUT_S="0.5")
        process = process_of(settings, GATEWAY_PUBLISH_TIMEOUT_S="0.5")
        async with serving(settings) as gateway, process as other:
            await other.until("watch_ready")
            created = await minted(gateway)
            async with watching(here := Replica([address_of(gateway)]), there := Replica([other.address])):
                server_pid = server.pid
                os.kill(server_pid, signal.SIGSTOP)
                try:
                    started_s = time.monotonic()
                    revoked = await gateway.call(gateway.keys.RevokeKey, k.RevokeKeyRequest(prefix=created.prefix))
                    assert revoked.publication == publication_pb2.PUBLICATION_PENDING
                    for replica in (here, there):
                        await until(lambda one=replica: (2, True) in one.learnt.versions(created.key.id))  # type: ignore[misc]
                    log.info("told_without_redis", after_s=time.monotonic() - started_s)
                finally:
                    os.kill(server_pid, signal.SIGCONT)
                # Afterwards it comes once more, in its place.
                for replica in (here, there):
                    await until(
                        lambda one=replica: len(one.learnt.versions(created.key.id)) >= 2,  # type: ignore[misc]
                        timeout_s=30,
                    )
                assert here.watch.is_current
                assert there.watch.is_current


async def test_after_redis_lost_everything_workers_begin_anew_and_changes_go_on(gateway, client):
    created = await minted(gateway)
    async with watching(replica := Replica([address_of(gateway)])):
        before = replica.revision
        await client.flushall()
        await gateway.call(gateway.keys.RevokeKey, k.RevokeKeyRequest(prefix=created.prefix))
        await until(lambda: hub_of(gateway).revision > before, timeout_s=30)
        await until(lambda: replica.revision >= hub_of(gateway).revision, timeout_s=30)
        assert len(replica.learnt.snapshots) == 2
        await gateway.call(gateway.keys.RotateKey, k.RotateKeyRequest(prefix=(other := await minted(gateway)).prefix))
        await until(lambda: (2, True) in replica.learnt.versions(other.key.id))


async def test_a_database_that_is_older_than_the_stream_does_not_stop_changes(client, served):
    async with watching(replica := Replica([served.address])):
        first = await served.hub.announce(Change(kind=ChangeKind.KEY, id="k", version=1))
        async with engine.connection() as connection:
            await connection.execute("SELECT setval('control.revision', 1)")
        both = await asyncio.gather(
            *(served.hub.announce(Change(kind=ChangeKind.KEY, id="k", version=2)) for _ in range(2))
        )
        assert sorted(both) == [first + 1, first + 2]
        await until(lambda: replica.revision == first + 2)


async def test_without_redis_an_announcement_says_so_and_leaves_the_turn_to_the_next(tmp_path, database):
    change = Change(kind=ChangeKind.KEY, id="k", version=1)
    with Redis(tmp_path) as server:
        async with connection.connect(server.url, connect_timeout_s=2.0) as client:
            hub = hub_over(client, timeout_s=2.0)
            first = await hub.announce(change)
            await asyncio.to_thread(server.stop)
            for _ in range(3):
                with pytest.raises(RedisUnavailableError):
                    await hub.announce(change)
            await asyncio.to_thread(server.start)
            assert await hub.announce(change) > first


async def test_a_worker_is_seen_by_the_other_control_planes(client, served, database):
    async with watching(replica := Replica([served.address])):
        record = await eventually(lambda: record_of(Replicas(client, timeout_s=1), replica.worker_id))
        assert record.control_plane == "one"
        assert abs(record.seen_at_ms - (await client.time())[0] * 1000) < 5000


async def test_what_the_stream_says_in_words_of_a_later_release_is_passed_over(client, served):
    async with watching(replica := Replica([served.address])):
        first = await served.hub.announce(Change(kind=ChangeKind.KEY, id="k", version=1))
        await client.xadd(keyspace.CHANGES, {"k": "policy", "p": str(first)}, id=f"{first + 1}-0")
        last = await served.hub.announce(Change(kind=ChangeKind.KEY, id="k", version=2))
        await until(lambda: replica.revision == last)
        assert [change.revision for change in replica.learnt.changes] == [first, last]


async def test_a_control_plane_that_cannot_reach_redis_is_not_watched(client, database, tmp_path):
    hub = hub_over(client)
    served = Served(client)
    server = grpc.aio.server()
    served.service.add_to_server(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        assert not hub.is_ready
        async with RawStream(f"127.0.0.1:{port}") as stream:
            await stream.hello()
            assert await stream.code() is grpc.StatusCode.UNAVAILABLE
    finally:
        await server.stop(0)
