"""A flood of calls, with and without credentials, takes nothing from the watch of data planes."""

import asyncio
import contextlib

import grpc
import pytest

from neuronetz.admin.v1 import key_pb2, tenant_pb2, tenant_pb2_grpc
from tests.fakes.waiting import until
from tests.integration.controlplane.conftest import VIEWER_TOKEN, fresh_database, serving, settings_for
from tests.integration.watch.conftest import Replica, watching
from tests.integration.watch.test_planes import address_of, hub_of, minted

CONNECTIONS = 4
CALLS_OF_ONE = 60
# How many calls have been answered before anything else is asked: then all of them are at it.
ANSWERED = 300
# A watch that starves hears nothing as long as the flood goes on, and this one goes on until it has heard.
TOLD_WITHIN_S = 40.0
OF_VIEWER = (("authorization", f"Bearer {VIEWER_TOKEN}"),)


@pytest.mark.parametrize("metadata", [OF_VIEWER, ()], ids=["a viewer", "nobody"])
async def test_a_flood_of_calls_does_not_starve_the_watch(postgres_server, redis, metadata):
    statuses: dict[str, int] = {}
    is_over = asyncio.Event()

    async def flood(channel: grpc.aio.Channel) -> None:
        stub = tenant_pb2_grpc.TenantServiceStub(channel)
        while not is_over.is_set():
            try:
                await stub.ListTenants(tenant_pb2.ListTenantsRequest(), metadata=metadata, timeout=TOLD_WITHIN_S)
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
        for _ in range(CONNECTIONS):
            options = (("grpc.use_local_subchannel_pool", 1),)
            channel = await connections.enter_async_context(
                grpc.aio.insecure_channel(address_of(gateway), options=options)
            )
            for _ in range(CALLS_OF_ONE):
                tasks.create_task(flood(channel))
        await until(lambda: sum(statuses.values()) > ANSWERED, timeout_s=TOLD_WITHIN_S)
        # In the middle of it a new data plane finds in, and a suspension reaches both.
        async with asyncio.timeout(TOLD_WITHIN_S), watching(late := Replica([address_of(gateway)])):
            suspension = key_pb2.SuspendKeyRequest(prefix=created.prefix)
            await gateway.call(gateway.keys.SuspendKey, suspension)
            for one in (replica, late):
                await until(
                    lambda one=one: (2, True) in one.learnt.versions(created.key.id),  # type: ignore[misc]
                    timeout_s=TOLD_WITHIN_S,
                )
        is_over.set()
    if metadata:
        assert statuses.keys() <= {"OK", "RESOURCE_EXHAUSTED"}
    else:
        assert statuses.keys() <= {"UNAUTHENTICATED", "CANCELLED"}
