"""The control plane in this process, over real sockets, with the run's Postgres and Redis."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import grpc
import pytest
import pytest_asyncio
from redis.asyncio import Redis as RedisClient

from controlplane import app, config
from controlplane.lifecycle import ControlPlane
from controlplane.publish import connection
from controlplane.store import engine, migrate
from deploy.local.postgres import Postgres
from deploy.local.redis import CONTROLPLANE, Redis
from neuronetz.admin.v1 import key_pb2_grpc, tenant_pb2_grpc
from neuronetz.state.v1 import state_pb2_grpc

PEPPER = "a pepper for tests only"
ADMIN_TOKEN = "admin-token-for-tests"
OPERATOR_TOKEN = "operator-token-for-tests"
VIEWER_TOKEN = "viewer-token-for-tests"
DATAPLANE_TOKEN = "dataplane-token-for-tests"


async def fresh_database(server: Postgres) -> str:
    """A new database owned by the gateway's role; gives the owner's address."""
    name = f"test_{secrets.token_hex(6)}"
    superuser = await asyncpg.connect(server.dsn_of("postgres"), ssl=False)
    try:
        await superuser.execute(f"CREATE DATABASE {name} OWNER gateway")
    finally:
        await superuser.close()
    return server.owner_dsn.rsplit("/", 1)[0] + f"/{name}"


def settings_for(database_url: str, redis_url: str, **more: str) -> config.Settings:
    return config.load(
        {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "GATEWAY_KEY_PEPPER": PEPPER,
            "GATEWAY_SEALING_KEY": base64.b64encode(bytes(32)).decode(),
            "GATEWAY_ADMIN_BIND": "127.0.0.1:0",
            "GATEWAY_ADMIN_TOKEN": ADMIN_TOKEN,
            "GATEWAY_OPERATOR_TOKENS": f"olga:operator:{OPERATOR_TOKEN},vera:viewer:{VIEWER_TOKEN}",
            "GATEWAY_DATAPLANE_TOKEN": DATAPLANE_TOKEN,
            "GATEWAY_DRAIN_TIMEOUT_S": "1",
            "DATABASE_POOL_SIZE": "4",
            "DATABASE_POOL_OVERFLOW": "8",
            "ARGON2_TIME_COST": "1",
            "ARGON2_MEMORY_COST_KIB": "1024",
            "ARGON2_PARALLELISM": "1",
            "OLLAMA_BACKENDS": "[]",
        }
        | more
    )


class Running:
    """A control plane that serves, and stubs to call it as its administrator (or whoever ``bearer`` names)."""

    def __init__(self, plane: ControlPlane, settings: config.Settings, channel: grpc.aio.Channel) -> None:
        self.plane = plane
        self.settings = settings
        self.channel = channel
        self.tenants = tenant_pb2_grpc.TenantServiceStub(channel)
        self.keys = key_pb2_grpc.KeyServiceStub(channel)
        self.verifier = state_pb2_grpc.KeyVerifierStub(channel)

    async def call(self, method: Any, request: Any, *, token: str = ADMIN_TOKEN) -> Any:
        return await method(request, metadata=(("authorization", f"Bearer {token}"),), timeout=30)


@contextlib.asynccontextmanager
async def serving(settings: config.Settings, *, ready: bool = True) -> AsyncIterator[Running]:
    plane = app.create(settings)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(plane.run())
        async with asyncio.timeout(60):
            while not (plane.readiness.ready if ready else plane.port):
                assert not running.done()
                await asyncio.sleep(0.005)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{plane.port}") as channel:
            try:
                yield Running(plane, settings, channel)
            finally:
                plane.stop()


@pytest.fixture
async def settings(postgres_server: Postgres, redis: Redis) -> config.Settings:
    return settings_for(await fresh_database(postgres_server), redis.url_of(CONTROLPLANE))


@pytest.fixture
async def database(settings: config.Settings) -> AsyncIterator[config.Settings]:
    """A migrated database with the pool open."""
    await engine.connect(settings.database_url.reveal(), pool_size=4, pool_overflow=4)
    try:
        await migrate(settings)
        yield settings
    finally:
        await engine.disconnect()


@pytest.fixture
async def gateway(settings: config.Settings) -> AsyncIterator[Running]:
    async with serving(settings) as running:
        yield running


@pytest.fixture
async def client(redis: Redis) -> AsyncIterator[RedisClient]:
    async with connection.connect(redis.url, connect_timeout_s=2.0) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_gateway(postgres_server: Postgres, redis_server: Redis) -> AsyncIterator[Running]:
    """One control plane for a module whose tests leave nothing behind; they run in the module's loop."""
    async with serving(
        settings_for(await fresh_database(postgres_server), redis_server.url_of(CONTROLPLANE))
    ) as running:
        yield running
