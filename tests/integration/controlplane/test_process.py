"""The process: comes up whatever is missing, refuses bad settings, drains on SIGTERM."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from controlplane.config import Settings
from deploy.local.ports import free_port
from deploy.local.postgres import Postgres
from deploy.local.redis import Redis
from neuronetz.admin.v1 import key_pb2, key_pb2_grpc, tenant_pb2, tenant_pb2_grpc
from tests.integration.controlplane.conftest import ADMIN_TOKEN, PEPPER, settings_for

METADATA = (("authorization", f"Bearer {ADMIN_TOKEN}"),)


class Process:
    """``python -m controlplane`` with what it wrote."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.address = f"127.0.0.1:{port}"
        self.lines: list[str] = []

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.lines.append(line.decode())
            yield json.loads(line)

    async def until(self, event: str, **fields: object) -> dict[str, Any]:
        async with asyncio.timeout(60):
            async for found in self.events():
                if found["event"] == event and fields.items() <= found.items():
                    return found
        raise AssertionError(f"no {event} in {self.lines}")


def environment(settings: Settings, port: int, **more: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": ".:proto",
        "DATABASE_URL": settings.database_url.reveal(),
        "REDIS_URL": settings.redis_url.reveal(),
        "GATEWAY_KEY_PEPPER": PEPPER,
        "GATEWAY_SEALING_KEY": settings.sealing_key.reveal(),
        "GATEWAY_ADMIN_TOKEN": ADMIN_TOKEN,
        "GATEWAY_ADMIN_BIND": f"127.0.0.1:{port}",
        "ARGON2_TIME_COST": "1",
        "ARGON2_MEMORY_COST_KIB": "1024",
    } | more


@contextlib.asynccontextmanager
async def running(settings: Settings, **more: str) -> AsyncIterator[Process]:
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "controlplane"),
        env=environment(settings, port, **more),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Process(process, port)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_it_comes_up_serves_and_drains(settings: Settings):
    async with running(settings) as plane:
        await plane.until("readiness_changed", ready=True)
        async with grpc.aio.insecure_channel(plane.address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            check = stub.Check
            answer = await check(health_pb2.HealthCheckRequest(), metadata=METADATA, timeout=30)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            await tenant_pb2_grpc.TenantServiceStub(channel).CreateTenant(
                tenant_pb2.CreateTenantRequest(name="acme"), metadata=METADATA, timeout=5
            )
            created = await key_pb2_grpc.KeyServiceStub(channel).CreateKey(
                key_pb2.CreateKeyRequest(tenant="acme", name="prod"), metadata=METADATA, timeout=5
            )
        plane.process.send_signal(signal.SIGTERM)
        await plane.until("control_plane_stopped")
        assert await asyncio.wait_for(plane.process.wait(), 30) == 0
        output = "".join(plane.lines)
        assert created.api_key not in output
        assert PEPPER not in output
        assert ADMIN_TOKEN not in output


async def test_it_waits_for_postgres_and_redis(tmp_path):
    with Postgres(tmp_path / "postgres", fsync=False) as postgres, Redis(tmp_path / "redis") as redis:
        settings = settings_for(postgres.owner_dsn, redis.url)
        postgres.stop()
        redis.stop()
        async with running(settings) as plane:
            await plane.until("postgres_awaited")
            async with grpc.aio.insecure_channel(plane.address) as channel:
                stub: Any = health_pb2_grpc.HealthStub(channel)
                check = stub.Check
                answer = await check(health_pb2.HealthCheckRequest(), metadata=METADATA, timeout=30)
                assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
                listing = tenant_pb2_grpc.TenantServiceStub(channel).ListTenants
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await listing(tenant_pb2.ListTenantsRequest(), metadata=METADATA, timeout=30)
                assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
            redis.start()
            postgres.start()
            await plane.until("readiness_changed", ready=True)


async def test_all_faults_of_the_settings_are_said_at_once(settings: Settings):
    async with running(settings, GATEWAY_KEY_PEPPER="short", DATABASE_POOL_SIZE="0", OLLAMA_BACKENDS="{}") as plane:
        faults = [event["fault"] async for event in plane.events() if event["event"] == "configuration_refused"]
        assert await plane.process.wait() == 64
    assert {fault.split(":")[0] for fault in faults} == {"GATEWAY_KEY_PEPPER", "DATABASE_POOL_SIZE", "OLLAMA_BACKENDS"}


async def test_a_port_in_use_ends_the_process(settings: Settings):
    async with running(settings) as first:
        await first.until("control_plane_listening")
        async with running(settings, GATEWAY_ADMIN_BIND=first.address) as second:
            await second.until("port_unavailable")
            assert await asyncio.wait_for(second.process.wait(), 30) == 69
