"""Real servers for everybody: one Postgres and one Redis per run, clean for each test that asks.

``redis_server`` and ``postgres_server`` are shared by the whole run; a test that stops, kills or reconfigures a server
starts its own from ``deploy.local``.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import hypothesis
import pytest
import redis as redis_client
import structlog

from deploy.local.postgres import Postgres
from deploy.local.redis import Redis
from tests.fakes import own_ports

# Examples share two cores with real servers: how long one takes says nothing.
hypothesis.settings.register_profile("gateway", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("gateway")


def pytest_configure(config: pytest.Config) -> None:
    worker, workers = os.environ.get("PYTEST_XDIST_WORKER"), os.environ.get("PYTEST_XDIST_WORKER_COUNT")
    if worker and workers:
        own_ports.keep_to(int(worker.removeprefix("gw")), int(workers))


def pytest_addoption(parser: pytest.Parser) -> None:
    # By default longer than any deadline, and always well below the life of what was discovered (900 s there).
    parser.addoption(
        "--outage-s", type=float, default=30.0, help="how long control planes and Postgres are away (30 s)"
    )


@pytest.fixture
def outage_s(request: pytest.FixtureRequest) -> float:
    """How long a long outage takes."""
    seconds: float = request.config.getoption("--outage-s")
    return seconds


@pytest.fixture(autouse=True)
def log_configuration() -> Iterator[None]:
    """Leaves the process's log as it was found: what one test configures is no other test's."""
    root, configuration = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.configure(**configuration)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with Redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis(redis_server: Redis) -> Redis:
    """The shared Redis, emptied."""
    with redis_client.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with Postgres(tmp_path_factory.mktemp("postgres"), fsync=False) as server:
        yield server


@pytest.fixture
def postgres(postgres_server: Postgres) -> Postgres:
    """The shared Postgres with an empty database that belongs to the gateway's role."""
    asyncio.run(_empty(postgres_server))
    return postgres_server


async def _empty(server: Postgres) -> None:
    connection = await asyncpg.connect(server.dsn_of("postgres"), ssl=False)
    try:
        await connection.execute("DROP DATABASE IF EXISTS gateway WITH (FORCE)")
        await connection.execute("CREATE DATABASE gateway OWNER gateway")
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return Path(__file__).resolve().parent.parent
