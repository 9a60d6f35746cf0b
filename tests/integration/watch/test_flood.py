"""A flood of calls, with and without credentials, takes nothing from the watch of data planes."""

import asyncio
import contextlib
import time

import grpc
import pytest

from neuronetz.admin.v1 import key_pb2, tenant_pb2, tenant_pb2_grpc
from tests.fakes.waiting import until
from tests.integration.controlplane.conftest import VIEWER_TOKEN, fresh_database, serving, settings_for
from tests.integration.watch.conftest import Replica, watching
from tests.integration.watch.test_planes import address_of, hub_of, minted

FLOOD_S = 5.0
CONNECTIONS = 4
CALLS_OF_ONE = 60
OF_VIEWER = (("authorization", f"Bearer {VIEWER_TOKEN}"),)


@pytest.mark.parametrize("metadata", [OF_VIEWER, ()], ids=["a viewer", "nobody"])
async def test_a_flood_of_calls_does_not_starve_the_watch(postgres_server, redis, metadata):
    statuses: dict[str, int] = {}
    ends_at_s = time.monotonic() + FLOOD_S

    async def flood(channel: grpc.aio.Channel) -> None:
        stub = tenant_pb2_grpc.TenantServiceStub(channel)
        while time.monotonic() < ends_at_s:
            try:
                await stub.ListTenants(tenant_pb2.ListTenantsRequest(), metadata=metadata, timeout=5)
                status = "OK"
            except grpc.aio.AioRpcError as refused:
                status = refused.code().name
            statuses[status] = statuses.get(status, 0) + 1

    async with (
        serving(settings_for(await fresh_database(postgres_server), redis.url)) as gateway,
        watching(replica := Replica([address_of(gateway)])),
        contextlib.AsyncExitStack() as connections,
        asyncio.TaskGroup() as tasks,
    ):
        await until(lambda: hub_of(gateway).is_ready)
        created = await minted(gateway)
        ends_at_s = time.monotonic() + FLOOD_S
        for _ in range(CONNECTIONS):
            options = (("grpc.use_local_subchannel_pool", 1),)
            channel = await connections.enter_async_context(
                grpc.aio.insecure_channel(address_of(gateway), options=options)
            )
            for _ in range(CALLS_OF_ONE):
                tasks.create_task(flood(channel))
        # In the middle of it a new data plane finds in, and a suspension reaches both.
        async with watching(late := Replica([address_of(gateway)])):
            started_s = time.monotonic()
            await gateway.call(gateway.keys.SuspendKey, key_pb2.SuspendKeyRequest(prefix=created.prefix))
            await until(lambda: (2, True) in replica.learnt.versions(created.key.id))
            await until(lambda: (2, True) in late.learnt.versions(created.key.id))
            took_s = time.monotonic() - started_s
            assert time.monotonic() < ends_at_s, "the flood was over"
    assert took_s < 3.0
    assert sum(statuses.values()) > 100
    if metadata:
        assert statuses.keys() <= {"OK", "RESOURCE_EXHAUSTED"}
    else:
        assert statuses.keys() <= {"UNAUTHENTICATED", "CANCELLED"}
