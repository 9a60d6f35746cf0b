"""Postgres goes and comes back under a running control plane."""

import asyncio

import grpc
import pytest

from deploy.local.postgres import Postgres
from neuronetz.admin.v1 import key_pb2 as k
from neuronetz.admin.v1 import tenant_pb2 as t
from tests.integration.controlplane.conftest import serving, settings_for


async def test_without_postgres_writes_are_unavailable_and_come_back_with_it(tmp_path, redis):
    with Postgres(tmp_path, fsync=False) as server:
        async with serving(settings_for(server.owner_dsn, redis.url)) as gateway:
            await gateway.call(gateway.tenants.CreateTenant, t.CreateTenantRequest(name="acme"))
            for end in (server.stop, server.kill):
                await asyncio.to_thread(end)
                for _ in range(15):
                    with pytest.raises(grpc.aio.AioRpcError) as refused:
                        await gateway.call(gateway.keys.CreateKey, k.CreateKeyRequest(tenant="acme", name="x"))
                    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
                    assert "127.0.0.1" not in str(refused.value.details())
                await asyncio.to_thread(server.start)
                async with asyncio.timeout(15):
                    while not gateway.plane.readiness.ready:
                        await asyncio.sleep(0.02)
                await gateway.call(gateway.keys.CreateKey, k.CreateKeyRequest(tenant="acme", name="x"))
