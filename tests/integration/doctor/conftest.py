from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis as RedisClient

from controlplane.publish import connection
from controlplane.store import engine
from deploy.local.postgres import Postgres
from deploy.local.redis import Redis
from tests.integration import servers


@pytest.fixture(scope="package")
def migrated_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with Postgres(tmp_path_factory.mktemp("doctor-postgres"), fsync=False) as server:
        asyncio.run(servers.make_template(server))
        yield server


@pytest.fixture
async def database_url(migrated_postgres: Postgres) -> AsyncIterator[str]:
    """The owner's address of a migrated database; the pool is closed afterwards."""
    yield await servers.copy_of_template(migrated_postgres)
    await engine.disconnect()


@pytest.fixture(scope="package")
def careless_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """A Redis that nobody should decide on requests with."""
    settings = {"maxmemory-policy": "allkeys-lru", "appendonly": "no", "appendfsync": "no", "maxmemory": "0"}
    with Redis(tmp_path_factory.mktemp("careless-redis"), settings=settings) as server:
        yield server


@pytest.fixture
async def client(redis: Redis) -> AsyncIterator[RedisClient]:
    async with connection.connect(redis.url, connect_timeout_s=2.0) as client:
        yield client


@pytest.fixture
async def careless(careless_redis: Redis) -> AsyncIterator[RedisClient]:
    async with connection.connect(careless_redis.url, connect_timeout_s=2.0) as client:
        yield client


@pytest.fixture
def strong() -> dict[str, str]:
    """Secrets with which the doctor is content."""
    names = ("GATEWAY_KEY_PEPPER", "GATEWAY_SEALING_KEY", "GATEWAY_ADMIN_TOKEN")
    return {name: secrets.token_urlsafe(32) for name in names}
