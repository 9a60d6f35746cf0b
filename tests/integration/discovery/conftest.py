from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
from redis.asyncio import Redis as RedisClient

from controlplane.publish import connection
from controlplane.store import engine
from deploy.local.postgres import Postgres
from deploy.local.redis import Redis
from deploy.mock_ollama import MockOllama
from tests.integration import servers


@pytest.fixture(scope="session")
def migrated_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with Postgres(tmp_path_factory.mktemp("discovery-postgres"), fsync=False) as server:
        asyncio.run(servers.make_template(server))
        yield server


@pytest.fixture
async def database_url(migrated_postgres: Postgres) -> str:
    return await servers.copy_of_template(migrated_postgres)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[str]:
    """The address of a migrated database with the pool open."""
    await servers.connect(database_url)
    yield database_url
    await engine.disconnect()


@pytest.fixture
async def client(redis: Redis) -> AsyncIterator[RedisClient]:
    async with connection.connect(redis.url, connect_timeout_s=2.0) as client:
        yield client


@pytest.fixture
async def mocks() -> AsyncIterator[Callable[..., Awaitable[MockOllama]]]:
    """Starts mock Ollamas that end with the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(*models: str, **options: object) -> MockOllama:
            mock = MockOllama(models=models or None, **options)  # type: ignore[arg-type] # options of the mock
            return await stack.enter_async_context(mock)

        yield start
