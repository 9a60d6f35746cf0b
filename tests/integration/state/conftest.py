"""A Redis with published state and a running link."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from dataplane.quota.link import Link
from deploy.local.redis import Redis
from tests.fakes.published_state import PublishedState
from tests.fakes.redis_link import running_link


@pytest.fixture
def state(redis: Redis) -> Iterator[PublishedState]:
    """The shared Redis, stamped."""
    published = PublishedState(redis.url)
    published.stamp()
    yield published
    published.close()


@pytest.fixture
async def link(state: PublishedState) -> AsyncIterator[Link]:
    async with running_link(state.url) as link:
        yield link
