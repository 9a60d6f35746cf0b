"""Readiness knows whether Redis holds rebuilt state."""

from __future__ import annotations

import pytest

from dataplane.quota.announcements import Announcements
from dataplane.quota.calls import Calls
from dataplane.quota.fences import READINESS_CHECK, FenceWatch
from dataplane.quota.link import Link
from dataplane.quota.refused import RefusedVersions
from dataplane.quota.renewal import Renewal
from dataplane.quota.settlements import Settlements
from shared import keyspace
from shared.clock import SystemClock
from shared.lifecycle import Readiness
from tests.fakes.published_state import PublishedState
from tests.fakes.redis_link import running_link

pytestmark = pytest.mark.redis


def announcements(link: Link) -> Announcements:
    settlements = Settlements(link=link, calls=Calls(backlog_max_events=16_000), capacity=10)
    renewal = Renewal(link=link, refused=RefusedVersions(), clock=SystemClock())
    return Announcements(link=link, settlements=settlements, renewal=renewal, worker_id="worker")


def failing(readiness: Readiness) -> list[str]:
    return list(readiness.failing)


async def test_every_shard_needs_a_valid_fence(link: Link, state: PublishedState):
    readiness = Readiness((READINESS_CHECK,))
    watch = FenceWatch(link=link, readiness=readiness, announcements=announcements(link))
    await watch.look()
    assert failing(readiness) == []
    state.client.delete(keyspace.fence(keyspace.SHARDS[9]))
    await watch.look()
    assert failing(readiness) == ["fence"]
    state.client.set(keyspace.fence(keyspace.SHARDS[9]), "another:server:1")
    await watch.look()
    assert failing(readiness) == ["fence"]
    state.stamp()
    await watch.look()
    assert failing(readiness) == []


async def test_redis_that_is_away_holds_no_fence():
    readiness = Readiness((READINESS_CHECK,))
    async with running_link("redis://127.0.0.1:1/0", trusted=False) as link:
        await FenceWatch(link=link, readiness=readiness, announcements=announcements(link)).look()
    assert failing(readiness) == ["fence"]
