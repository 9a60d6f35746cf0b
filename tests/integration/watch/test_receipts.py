"""What operators are told of a change: a line for each worker, wherever it watches; and the fleet as a whole."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from controlplane.core.replicas import ReplicaRecord
from controlplane.publish.replicas import Replicas
from controlplane.store import engine
from deploy.local.redis import Redis
from neuronetz.admin.v1 import fleet_pb2, fleet_pb2_grpc, publication_pb2
from neuronetz.admin.v1 import key_pb2 as k
from neuronetz.admin.v1 import tenant_pb2 as t
from neuronetz.state.v1 import state_pb2 as pb
from tests.fakes.waiting import until
from tests.integration.controlplane.conftest import VIEWER_TOKEN, Running, fresh_database, serving, settings_for
from tests.integration.watch.conftest import RawStream, Replica, watching
from tests.integration.watch.test_planes import address_of, hub_of, minted

# How long is waited for receipts where a request says nothing, which tells an answer that was waited for.
RECEIPT_TIMEOUT_S = 8.0
PUBLISH_TIMEOUT_S = 2.0
VIEWER = (("authorization", f"Bearer {VIEWER_TOKEN}"),)


@pytest.fixture
async def gateway(postgres_server, redis):
    patience = {"GATEWAY_RECEIPT_TIMEOUT_S": f"{RECEIPT_TIMEOUT_S}"}
    async with serving(settings_for(await fresh_database(postgres_server), redis.url, **patience)) as running:
        await until(lambda: hub_of(running).is_ready)
        yield running


def within(milliseconds: int) -> Duration:
    wait = Duration()
    wait.FromMilliseconds(milliseconds)
    return wait


def cutting(gateway: Running, streams: int) -> Replica:
    """A worker that says of every change that it has cut so many streams."""
    replica = Replica([address_of(gateway)])
    replica.learnt.apply_change = lambda _: streams
    return replica


async def revoked(gateway: Running, prefix: str, **fields: Any) -> Any:
    return await gateway.call(gateway.keys.RevokeKey, k.RevokeKeyRequest(prefix=prefix, **fields))


async def test_every_worker_that_watches_has_a_line_with_what_it_cut(gateway):
    created = await minted(gateway)
    async with watching(one := cutting(gateway, 3), two := cutting(gateway, 0)):
        answer = await revoked(gateway, created.prefix)
    found = {receipt.worker_id: receipt for receipt in answer.receipts}
    assert found.keys() == {one.worker_id, two.worker_id}
    assert all(receipt.applied and receipt.elapsed_ms < 1000 * RECEIPT_TIMEOUT_S for receipt in answer.receipts)
    assert (found[one.worker_id].streams_cut, found[two.worker_id].streams_cut) == (3, 0)
    assert found[one.worker_id].address == "127.0.0.1:8080"
    assert len({receipt.revision for receipt in answer.receipts}) == 1


async def test_suspension_rotation_and_changed_limits_are_receipted_too(gateway):
    created = await minted(gateway)
    async with watching(cutting(gateway, 1)):
        answers = [
            await gateway.call(gateway.keys.UpdateKey, k.UpdateKeyRequest(prefix=created.prefix, clear=["rpm"])),
            await gateway.call(gateway.keys.SuspendKey, k.SuspendKeyRequest(prefix=created.prefix)),
            await gateway.call(gateway.keys.ResumeKey, k.ResumeKeyRequest(prefix=created.prefix)),
            await gateway.call(gateway.tenants.UpdateTenant, t.UpdateTenantRequest(tenant=created.key.tenant)),
            await gateway.call(gateway.tenants.SuspendTenant, t.SuspendTenantRequest(tenant=created.key.tenant)),
            await gateway.call(gateway.tenants.ResumeTenant, t.ResumeTenantRequest(tenant=created.key.tenant)),
            await gateway.call(gateway.keys.RotateKey, k.RotateKeyRequest(prefix=created.prefix)),
        ]
    resumed = (k.ResumeKeyResponse, t.ResumeTenantResponse)
    receipted = [answer for answer in answers if not isinstance(answer, resumed)]
    assert [len(answer.receipts) for answer in receipted] == [1] * 5
    assert all(answer.receipts[0].applied for answer in receipted)


async def test_a_worker_that_does_not_answer_is_said_so_when_the_time_is_over(gateway):
    created = await minted(gateway)
    async with RawStream(address_of(gateway)) as silent, watching(Replica([address_of(gateway)])):
        await silent.hello(worker_id="silent")
        await silent.next()
        started_s = time.monotonic()
        answer = await revoked(gateway, created.prefix, receipt_timeout=within(1000))
        took_s = time.monotonic() - started_s
    found = {receipt.worker_id == "silent": receipt for receipt in answer.receipts}
    assert not found[True].applied
    assert found[False].applied
    assert 1.0 <= took_s < RECEIPT_TIMEOUT_S


async def test_nobody_waits_who_does_not_want_to(gateway):
    created = await minted(gateway)
    async with RawStream(address_of(gateway)) as silent:
        await silent.hello(worker_id="silent")
        await silent.next()
        started_s = time.monotonic()
        answer = await revoked(gateway, created.prefix, receipt_timeout=within(0))
        assert time.monotonic() - started_s < RECEIPT_TIMEOUT_S
    assert [receipt.applied for receipt in answer.receipts] == [False]


async def test_without_workers_there_are_no_receipts(gateway):
    answer = await revoked(gateway, (await minted(gateway)).prefix)
    assert list(answer.receipts) == []


async def test_a_dry_run_has_no_receipts(gateway):
    created = await minted(gateway)
    async with watching(Replica([address_of(gateway)])):
        answer = await revoked(gateway, created.prefix, validate_only=True)
    assert list(answer.receipts) == []


@pytest.mark.parametrize("milliseconds", [-1, 60_001])
async def test_a_timeout_that_cannot_be_is_refused_before_anything_changes(gateway, milliseconds):
    created = await minted(gateway)
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await revoked(gateway, created.prefix, receipt_timeout=within(milliseconds))
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    key = await gateway.call(gateway.keys.GetKey, k.GetKeyRequest(prefix=created.prefix))
    assert key.key.status == k.KEY_STATUS_ACTIVE


async def test_workers_of_another_control_plane_are_asked_through_the_registry(gateway, client):
    created, registry = await minted(gateway), Replicas(client, timeout_s=2)
    elsewhere = ReplicaRecord(worker_id="elsewhere", address="10.0.0.9:8080", revision=0, control_plane="other")
    await registry.report(elsewhere)
    revoking = asyncio.create_task(revoked(gateway, created.prefix, receipt_timeout=within(5000)))
    await until(lambda: hub_of(gateway).revision > 1)
    await asyncio.sleep(0)
    await registry.report(
        ReplicaRecord(
            worker_id="elsewhere",
            address="10.0.0.9:8080",
            revision=10**6,
            control_plane="other",
            streams_cut={10**6: 2},
        )
    )
    [receipt] = (await revoking).receipts
    assert (receipt.applied, receipt.streams_cut, receipt.address) == (True, 2, "10.0.0.9:8080")


async def test_without_redis_those_who_watch_here_are_receipted_all_the_same(tmp_path, postgres_server):
    with Redis(tmp_path) as server:
        settings = settings_for(
            await fresh_database(postgres_server), server.url, GATEWAY_PUBLISH_TIMEOUT_S=f"{PUBLISH_TIMEOUT_S}"
        )
        async with serving(settings) as gateway:
            await until(lambda: hub_of(gateway).is_ready)
            created = await minted(gateway)
            async with watching(worker := cutting(gateway, 2)):
                pid = server.pid
                os.kill(pid, signal.SIGSTOP)
                try:
                    started_s = time.monotonic()
                    answer = await revoked(gateway, created.prefix, receipt_timeout=within(20_000))
                    took_s = time.monotonic() - started_s
                finally:
                    os.kill(pid, signal.SIGCONT)
    assert answer.publication == publication_pb2.PUBLICATION_PENDING
    [receipt] = answer.receipts
    assert (receipt.worker_id, receipt.applied, receipt.streams_cut) == (worker.worker_id, True, 2)
    # The publication's deadline once, not the registry's besides.
    assert took_s < 2 * PUBLISH_TIMEOUT_S


# The fleet


def fleet_of(gateway: Running) -> Any:
    return fleet_pb2_grpc.FleetServiceStub(gateway.channel)


async def listed(gateway: Running, **fields: Any) -> Any:
    return await gateway.call(fleet_of(gateway).ListReplicas, fleet_pb2.ListReplicasRequest(**fields))


async def test_the_fleet_shows_who_is_how_far_behind(gateway):
    await minted(gateway)
    async with RawStream(address_of(gateway)) as behind, watching(ahead := Replica([address_of(gateway)])):
        await behind.hello(worker_id="behind")
        await behind.next()
        await behind.say(
            heartbeat=pb.WorkerHeartbeat(in_flight=7, ready=True),
        )
        await revoked(gateway, (await minted(gateway)).prefix, receipt_timeout=within(100))

        async def told() -> Any:
            answer = await listed(gateway)
            found = {replica.worker_id: replica for replica in answer.replicas}
            done = len(found) == 2 and found["behind"].in_flight == 7 and found[ahead.worker_id].lag == 0
            return found if done else None

        async with asyncio.timeout(30):
            while (found := await told()) is None:
                await asyncio.sleep(0.02)
        assert found["behind"].lag > 0
        assert found["behind"].ready
        assert 0 <= found["behind"].silent_s < 6
        assert found[ahead.worker_id].version == "1.0"


async def test_numbers_that_nobody_used_are_no_lag(gateway):
    async with watching(worker := Replica([address_of(gateway)], heartbeat_s=1.0)):
        await revoked(gateway, (await minted(gateway)).prefix)
        async with engine.connection() as connection:
            await connection.execute("SELECT nextval('control.revision')")
        async with asyncio.timeout(30):
            while True:
                answer = await listed(gateway)
                if [replica.revision for replica in answer.replicas] == [hub_of(gateway).revision]:
                    break
                await asyncio.sleep(0.02)
    assert answer.revision == worker.revision
    assert [replica.lag for replica in answer.replicas] == [0]


async def test_the_fleet_comes_in_pages(gateway, client):
    registry = Replicas(client, timeout_s=2)
    await registry.report(*(ReplicaRecord(worker_id=f"w{number}", address=f"10.0.0.{number}:1") for number in range(5)))
    seen: list[str] = []
    token = ""
    while True:
        answer = await listed(gateway, page_size=2, page_token=token)
        seen += [replica.worker_id for replica in answer.replicas]
        token = answer.next_page_token
        if not token:
            break
    assert seen == [f"w{number}" for number in range(5)]
    with pytest.raises(grpc.aio.AioRpcError):
        await listed(gateway, page_token="nonsense")


async def test_the_fleet_can_be_watched_by_a_viewer(gateway):
    call = fleet_of(gateway).WatchFleet(fleet_pb2.WatchFleetRequest(interval_ms=100), metadata=VIEWER)
    async with watching(replica := Replica([address_of(gateway)])):
        async with asyncio.timeout(30):
            async for answer in call:
                if [one.worker_id for one in answer.replicas] == [replica.worker_id]:
                    break
        call.cancel()
    for interval_ms in (-1, 99, 60_001):
        refused = fleet_of(gateway).WatchFleet(fleet_pb2.WatchFleetRequest(interval_ms=interval_ms), metadata=VIEWER)
        with pytest.raises(grpc.aio.AioRpcError, match="interval_ms"):
            await refused.read()
