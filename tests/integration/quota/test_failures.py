"""Failed authentications are counted per address block across the fleet."""

from __future__ import annotations

import pytest

from dataplane.quota.failures import RedisFailures
from dataplane.quota.link import Link
from shared import keyspace
from tests.fakes.manual_clock import ManualClock
from tests.fakes.published_state import PublishedState
from tests.fakes.redis_link import running_link

pytestmark = pytest.mark.redis


def failures_of(link: Link, limit: int = 3) -> RedisFailures:
    return RedisFailures(link=link, limit=limit, clock=ManualClock())


async def test_block_over_its_limit_is_told_so_until_its_window_ends(link: Link):
    failures = failures_of(link)
    assert [await failures.record("198.51.100.7") for _ in range(3)] == [None, None, None]
    seconds = await failures.record("198.51.100.7")
    assert seconds is not None
    assert 55 <= seconds <= 60
    assert await failures.record("198.51.100.8") is None


async def test_addresses_of_one_ipv6_network_count_together(link: Link):
    failures = failures_of(link)
    for number in range(3):
        assert await failures.record(f"2001:db8:0:1:{number}::1") is None
    assert await failures.record("2001:db8:0:1:ffff::9") is not None
    assert await failures.record("2001:db8:0:2::1") is None


async def test_workers_count_together(link: Link):
    one, two = failures_of(link, limit=1), failures_of(link, limit=1)
    assert await one.record("198.51.100.7") is None
    assert await two.record("198.51.100.7") is not None


async def test_flood_of_a_blocked_address_costs_redis_nothing(link: Link, state: PublishedState):
    failures = failures_of(link)
    for _ in range(4):
        await failures.record("198.51.100.7")
    counted = state.client.get(keyspace.auth_failures("198.51.100.7"))
    for _ in range(100):
        assert await failures.record("198.51.100.7") is not None
    assert state.client.get(keyspace.auth_failures("198.51.100.7")) == counted == b"4"


async def test_block_may_fail_again_in_the_next_window(link: Link, state: PublishedState):
    clock = ManualClock()
    failures = RedisFailures(link=link, limit=1, clock=clock)
    await failures.record("198.51.100.7")
    assert await failures.record("198.51.100.7") is not None
    clock.now_s += 61
    state.client.delete(keyspace.auth_failures("198.51.100.7"))
    assert await failures.record("198.51.100.7") is None


async def test_counter_has_a_time_to_live(link: Link, state: PublishedState):
    await failures_of(link).record("198.51.100.7")
    assert 0 < state.client.pttl(keyspace.auth_failures("198.51.100.7")) <= 60_000


async def test_redis_that_is_away_blocks_nobody():
    async with running_link("redis://127.0.0.1:1/0", trusted=False) as link:
        assert await failures_of(link, limit=1).record("198.51.100.7") is None
