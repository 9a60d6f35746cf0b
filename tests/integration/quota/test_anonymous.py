"""Failed authentications on their way to the audit log."""

from __future__ import annotations

import pytest

from dataplane.quota import anonymous
from dataplane.quota.anonymous import AnonymousCounts
from dataplane.quota.link import Link
from shared import keyspace, records
from shared.clock import SystemClock
from shared.records import AnonymousFailures
from tests.fakes.published_state import PublishedState
from tests.fakes.redis_link import running_link

pytestmark = pytest.mark.redis
_ENTRIES = records.decoder(AnonymousFailures)


def entries(state: PublishedState) -> list[AnonymousFailures]:
    return [records.decode(_ENTRIES, fields[b"e"]) for _, fields in state.client.xrange(keyspace.ANONYMOUS)]


async def test_failures_of_one_block_and_reason_are_one_entry(link: Link, state: PublishedState):
    counts = AnonymousCounts(link=link, clock=SystemClock())
    for number in range(300):
        counts.add("198.51.100.7", "checksum")
        counts.add(f"2001:db8::{number:x}", "checksum")
    counts.add("198.51.100.7", "throttled")
    await counts.flush()
    await counts.flush()
    assert sorted((one.block, one.reason, one.occurrences) for one in entries(state)) == [
        ("198.51.100.7", "checksum", 300),
        ("198.51.100.7", "throttled", 1),
        ("2001:db8::/64", "checksum", 300),
    ]


async def test_more_blocks_than_can_be_told_apart_count_as_one(
    link: Link, state: PublishedState, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(anonymous, "MAX_KINDS", 300)
    counts = AnonymousCounts(link=link, clock=SystemClock())
    for number in range(1000):
        counts.add(f"10.0.{number // 250}.{number % 250}", "unknown")
    await counts.flush()
    found = {one.block: one.occurrences for one in entries(state)}
    assert len(found) == 301
    assert found[anonymous.OTHER_BLOCK] == 700


async def test_counts_wait_while_redis_is_away():
    async with running_link("redis://127.0.0.1:1/0", trusted=False) as link:
        counts = AnonymousCounts(link=link, clock=SystemClock())
        counts.add("198.51.100.7", "missing")
        await counts.flush()
        assert repr(counts) == "AnonymousCounts(1 kinds)"


async def test_counts_that_redis_refused_are_kept(link: Link, state: PublishedState):
    counts = AnonymousCounts(link=link, clock=SystemClock())
    counts.add("198.51.100.7", "missing")
    state.client.set(keyspace.ANONYMOUS, "not a stream")
    await counts.flush()
    state.client.delete(keyspace.ANONYMOUS)
    await counts.flush()
    assert [one.occurrences for one in entries(state)] == [1]


async def test_the_stream_is_cut_to_its_newest_entries(
    link: Link, state: PublishedState, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(anonymous, "MAX_ENTRIES", 100)
    counts = AnonymousCounts(link=link, clock=SystemClock())
    for number in range(1000):
        counts.add(f"10.0.{number // 250}.{number % 250}", "unknown")
    await counts.flush()
    assert state.client.xlen(keyspace.ANONYMOUS) < 400
