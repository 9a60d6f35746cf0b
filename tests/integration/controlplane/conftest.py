"""Real servers for the control plane's tests: one Postgres and one Redis per session, a fresh database per module."""

from __future__ import annotations

import base64
import secrets
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from controlplane import config
from controlplane.store import engine, migrate
from deploy.local.postgres import Postgres
from deploy.local.redis import Redis

PEPPER = "a pepper for tests only"
ADMIN_TOKEN = "admin-token-for-tests"
OPERATOR_TOKEN = "operator-token-for-tests"
VIEWER_TOKEN = "viewer-token-for-tests"
DATAPLANE_TOKEN = "dataplane-token-for-tests"


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with Postgres(tmp_path_factory.mktemp("postgres"), fsync=False) as server:
        yield server


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with Redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


async def fresh_database(postgres: Postgres) -> str:
    """A new database owned by the gateway's role; gives the owner's address."""
    name = f"test_{secrets.token_hex(6)}"
    superuser = await asyncpg.connect(postgres.dsn, ssl=False)
    try:
        await superuser.execute(f"CREATE DATABASE {name} OWNER gateway")
    finally:
        await superuser.close()
    return postgres.owner_dsn.rsplit("/", 1)[0] + f"/{name}"


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
            "DATABASE_POOL_SIZE": "4",
            "DATABASE_POOL_OVERFLOW": "4",
            "ARGON2_TIME_COST": "1",
            "ARGON2_MEMORY_COST_KIB": "1024",
            "ARGON2_PARALLELISM": "1",
        }
        | more
    )


@pytest.fixture
async def settings(postgres: Postgres, redis: Redis) -> config.Settings:
    return settings_for(await fresh_database(postgres), redis.url)


@pytest.fixture
async def database(settings: config.Settings) -> AsyncIterator[config.Settings]:
    """A migrated database with the pool open."""
    await engine.connect(settings.database_url.reveal(), pool_size=4, pool_overflow=4)
    try:
        await migrate(settings)
        yield settings
    finally:
        await engine.disconnect()
