"""Snapshots: shared, never valid for too long, and kept over an outage of Redis."""

from __future__ import annotations

import asyncio

import pytest

from controlplane.errors import RedisUnavailableError
from controlplane.metrics import Metrics
from controlplane.publish.published import Published
from controlplane.watch.snapshots import FRESH_S, SHARED_S, Snapshots
from tests.fakes.manual_clock import ManualClock


class Source:
    """Published state that a test sets; None is a Redis that is away."""

    def __init__(self) -> None:
        self.published: Published | None = Published(config=b"c1", discovered=b"d1", discovered_ttl_ms=10_000)
        self.reads = 0

    async def read(self) -> Published:
        self.reads += 1
        await asyncio.sleep(0)
        if self.published is None:
            raise RedisUnavailableError("away")
        return self.published


def made(at_a_time: int = 2) -> tuple[Snapshots, Source, ManualClock]:
    source, clock = Source(), ManualClock()
    return Snapshots(source=source, clock=clock, metrics=Metrics(), at_a_time=at_a_time), source, clock


async def test_everybody_who_asks_at_once_gets_the_same_one():
    snapshots, source, _ = made()
    await asyncio.gather(*(snapshots.freshen() for _ in range(10)))
    assert source.reads == 1
    assert snapshots.at(1) is snapshots.at(1)
    assert snapshots.at(2) is not snapshots.at(1)


async def test_its_validity_is_never_overstated():
    snapshots, _, clock = made()
    await snapshots.read()
    first = snapshots.at(1)
    clock.now_s += SHARED_S - 0.01
    assert snapshots.at(1) is first
    assert first.discovered_valid_ms <= 10_000 - round(1000 * (SHARED_S - 0.01))
    clock.now_s += 9
    assert snapshots.at(1).discovered_valid_ms < 1000


async def test_what_was_discovered_ends_and_backends_do_not():
    snapshots, source, clock = made()
    await snapshots.read()
    source.published = Published()
    clock.now_s += FRESH_S
    await snapshots.freshen()
    clock.now_s += 10
    snapshot = snapshots.at(1)
    assert (snapshot.config, snapshot.discovered, snapshot.discovered_valid_ms) == (b"c1", b"", 0)


async def test_without_redis_what_was_known_last_is_given():
    snapshots, source, clock = made()
    await snapshots.read()
    source.published = None
    clock.now_s += FRESH_S
    await snapshots.freshen()
    assert snapshots.at(1).config == b"c1"
    with pytest.raises(RedisUnavailableError):
        await snapshots.read()


async def test_only_so_many_are_sent_at_a_time():
    snapshots, _, _ = made(at_a_time=2)
    assert await snapshots.take_slot(within_s=0.01)
    assert await snapshots.take_slot(within_s=0.01)
    assert not await snapshots.take_slot(within_s=0.01)
    waiting = asyncio.create_task(snapshots.take_slot(within_s=5))
    await asyncio.sleep(0)
    snapshots.return_slot()
    assert await waiting
    assert (snapshots.in_flight, snapshots.most_in_flight) == (2, 2)
