"""A Redis with published state, and the adapters on a running link."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from dataplane.quota import calls as packed
from dataplane.quota import scripts
from dataplane.quota.calls import Calls
from dataplane.quota.leases import RedisLeases
from dataplane.quota.link import Link
from dataplane.quota.refused import RefusedVersions
from dataplane.quota.settlements import Settlements
from deploy.local.redis import Redis
from shared.clock import SystemClock
from tests.fakes.published_state import PublishedState
from tests.fakes.redis_link import running_link
from tests.fakes.tcp_proxy import TCPProxy, proxied
from tests.integration.quota.clock import CLOCKED, clocked


@pytest.fixture
def state(redis: Redis) -> Iterator[PublishedState]:
    """The shared Redis, stamped."""
    published = PublishedState(redis.url)
    published.stamp()
    yield published
    published.close()


@pytest.fixture
def clocked_scripts(state: PublishedState, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Packed calls run on the test's clock."""
    state.load(CLOCKED)
    with monkeypatch.context() as patch:
        for name in ("ACQUIRE", "SETTLE", "CORRECT", "ABANDON"):
            patch.setattr(packed, name, clocked(getattr(scripts, name)))
        yield


@pytest.fixture
async def link(state: PublishedState) -> AsyncIterator[Link]:
    async with running_link(state.url) as link:
        yield link


@pytest.fixture
async def proxy(redis: Redis) -> AsyncIterator[TCPProxy]:
    async with proxied("127.0.0.1", redis.port) as proxy:
        yield proxy


@pytest.fixture
def calls() -> Calls:
    return Calls(backlog_max_events=16_000)


@pytest.fixture
def settlements(link: Link, calls: Calls) -> Settlements:
    return Settlements(link=link, calls=calls, capacity=10)


@pytest.fixture
def leases(link: Link, calls: Calls, settlements: Settlements) -> RedisLeases:
    return RedisLeases(link=link, calls=calls, buffer=settlements, refused=RefusedVersions(), clock=SystemClock())
