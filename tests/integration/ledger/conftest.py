from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis as RedisClient

from controlplane.publish import connection
from controlplane.store import engine
from deploy.local.postgres import Postgres
from deploy.local.redis import Redis
from tests.integration import servers


@pytest.fixture(scope="session")
def migrated_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with Postgres(tmp_path_factory.mktemp("ledger-postgres"), fsync=False) as server:
        asyncio.run(servers.make_template(server))
        yield server


@pytest.fixture
async def database(migrated_postgres: Postgres) -> AsyncIterator[str]:
    """The address of a migrated database with the pool open."""
    url = await servers.copy_of_template(migrated_postgres)
    await servers.connect(url)
    yield url
    await engine.disconnect()


@pytest.fixture
async def client(redis: Redis) -> AsyncIterator[RedisClient]:
    async with connection.connect(redis.url, connect_timeout_s=2.0) as client:
        yield client
