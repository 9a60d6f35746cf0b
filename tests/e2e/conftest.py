"""One gateway for the whole folder, in front of two mock Ollamas; tests that break things start their own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.harness import Gateway, MockOllama, running

MODELS = ("llama3.2:latest", "qwen3:8b", "gemma3:4b", "nomic-embed-text:latest")


@pytest.fixture(scope="session")
def mocks() -> Iterator[list[MockOllama]]:
    with running(MockOllama("first")) as first, running(MockOllama("second")) as second:
        yield [first, second]


@pytest.fixture(scope="session")
def gateway(mocks, tmp_path_factory) -> Iterator[Gateway]:
    with running(Gateway(tmp_path_factory.mktemp("gateway"), mocks)) as gateway:
        yield gateway
        # Whatever the whole folder did, nobody lacked a right in Redis (entries of a log that was emptied on purpose
        # would be of a test of its own).
        assert [entry["object"] for entry in gateway.redis.acl_log()] == []


@pytest.fixture
def mock(mocks) -> Iterator[MockOllama]:
    """The mock of the first backend, without scripts, its records forgotten."""
    for each in mocks:
        each.reset()
    yield mocks[0]
    for each in mocks:
        each.reset()


@pytest.fixture(scope="session")
def shared_key(gateway) -> str:
    """A key of a tenant that may use every model."""
    gateway.tenant("shared")
    key = gateway.key("shared")
    gateway.wait_for_models(key, *MODELS)
    return key


@pytest.fixture
def tenant(gateway) -> str:
    """A fresh tenant that may use every model."""
    name = f"t-{uuid.uuid4().hex[:10]}"
    gateway.tenant(name)
    return name


@pytest.fixture
def key(gateway, tenant) -> str:
    """A key of the fresh tenant."""
    return gateway.key(tenant)


@pytest.fixture(scope="session")
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=20, trust_env=False) as client:
        yield client


@pytest.fixture(scope="session")
def fleet_mock() -> Iterator[MockOllama]:
    with running(MockOllama("fleet", "--models", ",".join((*MODELS, "plain:1b")))) as mock:
        yield mock


@pytest.fixture(scope="session")
def fleet(fleet_mock, tmp_path_factory) -> Iterator[Gateway]:
    """Four data planes on one backend. Tests that break something leave it whole again."""
    options = ("--set=MODEL_DISCOVERY_CACHE_TTL_S=900",)
    with running(Gateway(tmp_path_factory.mktemp("fleet"), [fleet_mock], *options, replicas=4)) as gateway:
        gateway.tenant("fleet")
        gateway.wait_for_models(gateway.key("fleet"), "llama3.2:latest")
        yield gateway
