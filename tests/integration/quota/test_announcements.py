"""A rebuild is told what Redis may have lost and only a worker knows."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator

import msgspec
import pytest

from dataplane.interrupt import Interrupt
from dataplane.quota.announcements import Announcements
from dataplane.quota.leases import RedisLeases
from dataplane.quota.link import Link
from dataplane.quota.refused import RefusedVersions
from dataplane.quota.renewal import Renewal
from dataplane.quota.retained import Retained, RetainedEvent, retained_event
from dataplane.quota.settlements import Settlements
from dataplane.values import Principal, RequestId
from shared import keyspace
from shared.clock import SystemClock
from shared.keyspace import LeaseId, Shard
from tests.fakes import counted
from tests.fakes.published_state import PublishedState
from tests.fakes.waiting import until
from tests.integration.quota.caller import CRASHED, DEMAND, Caller, event, events_of

pytestmark = pytest.mark.redis
SHARD = Shard("s00")


class World:
    """One worker with requests of one principal, settled and running."""

    def __init__(self, link: Link, leases: RedisLeases, settlements: Settlements, state: PublishedState) -> None:
        self.state = state
        self.leases = leases
        self.settlements = settlements
        self.principal = state.principal()
        self.renewal = Renewal(link=link, refused=RefusedVersions(), clock=SystemClock())
        self.announcements = Announcements(
            link=link, settlements=settlements, renewal=self.renewal, worker_id="this worker"
        )

    async def settle_one(self) -> LeaseId:
        lease = await self.leases.acquire(self.principal, RequestId(uuid.uuid4().hex), DEMAND, CRASHED)
        self.settlements.settle(lease, self.principal, event(lease.lease_id, prompt="secret", reply="secret"))
        assert await self.settlements.drained(2.0) == 0
        return lease.lease_id

    async def begin_one(self) -> LeaseId:
        lease = await self.leases.acquire(self.principal, RequestId(uuid.uuid4().hex), DEMAND, CRASHED)
        self.renewal.hold(lease, self.principal, Interrupt())
        return lease.lease_id

    def lose_everything(self) -> None:
        self.state.client.flushall()

    def rebuild(self, token: str = "token") -> None:
        self.state.client.set(keyspace.rebuild_token(self.principal.shard), token)

    async def tell(self) -> None:
        await self.announcements.tell([self.principal.shard])

    def announced(self) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = self.state.client.hgetall(keyspace.announced(self.principal.shard))
        return found


@pytest.fixture
async def world(
    link: Link, leases: RedisLeases, settlements: Settlements, state: PublishedState
) -> AsyncIterator[World]:
    repeating = asyncio.create_task(settlements.run())
    yield World(link, leases, settlements, state)
    repeating.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await repeating


async def test_undrained_events_and_running_leases_come_back_without_texts(world: World):
    settled, running = await world.settle_one(), await world.begin_one()
    before = counted.lease(world.state.client, world.principal.shard, running)
    assert before is not None
    world.lose_everything()
    world.rebuild()
    await world.tell()
    assert events_of(world.state, world.principal) == [event(settled)]
    assert world.state.slots(world.principal) == (1, 1, 1)
    after = counted.lease(world.state.client, world.principal.shard, running)
    assert after == msgspec.structs.replace(before, admitted_at_ms=0, estimate=0)
    assert world.announced() == {b"this worker": b"token"}


async def test_a_rebuild_is_told_once_and_the_next_one_again(world: World):
    await world.settle_one()
    world.lose_everything()
    await world.tell()
    assert world.announced() == {}
    world.rebuild()
    await world.tell()
    await world.tell()
    assert len(events_of(world.state, world.principal)) == 1
    world.rebuild("another")
    await world.tell()
    assert len(events_of(world.state, world.principal)) == 2
    assert world.announced() == {b"this worker": b"another"}


async def test_nothing_is_told_once_the_shard_is_stamped(world: World):
    await world.settle_one()
    world.lose_everything()
    world.rebuild()
    world.state.stamp()
    await world.tell()
    assert events_of(world.state, world.principal) == []
    assert world.announced() == {}


async def test_settlement_that_waited_and_was_told_is_charged_once(world: World):
    running = await world.leases.acquire(world.principal, RequestId("r" * 32), DEMAND, CRASHED)
    world.lose_everything()
    world.settlements.settle(running, world.principal, event(running.lease_id))
    await until(lambda: world.settlements.is_stalled)
    world.rebuild()
    await world.tell()
    world.state.stamp()
    assert await world.settlements.drained(5.0) == 0
    assert events_of(world.state, world.principal) == [event(running.lease_id)]
    # Its tokens are what the rebuild has found in the stream; nothing is added to them.
    assert world.state.budgets(world.principal) == {}


async def test_open_lease_whose_settlement_waits_is_left_to_the_rebuild(world: World):
    running = await world.leases.acquire(world.principal, RequestId("r" * 32), DEMAND, CRASHED)
    world.state.client.delete(keyspace.fence(world.principal.shard))
    world.settlements.settle(running, world.principal, event(running.lease_id))
    await until(lambda: world.settlements.is_stalled)
    world.rebuild()
    await world.tell()
    assert counted.state_of(world.state.client, running.shard, running.lease_id) == "open"
    assert world.state.slots(world.principal) == (1, 1, 1)
    assert events_of(world.state, world.principal) == [event(running.lease_id)]


@pytest.mark.parametrize(("suffix", "told"), [("", 0), (":c", 1)])
async def test_of_a_reaped_lease_only_the_correction_is_told(world: World, suffix: str, told: int):
    world.state.client.set(keyspace.lease(world.principal.shard, LeaseId("r")), "reaped")
    kept = retained_event(event(f"r{suffix}"))
    world.settlements.retained.keep(world.principal.shard, b"1-0", kept)
    world.state.client.delete(keyspace.fence(world.principal.shard))
    world.rebuild()
    await world.tell()
    assert len(events_of(world.state, world.principal)) == told
    assert counted.state_of(world.state.client, world.principal.shard, "r") == ("settled" if told else "reaped")


async def test_worker_without_anything_to_tell_says_so(world: World):
    world.lose_everything()
    world.rebuild()
    await world.tell()
    assert world.announced() == {b"this worker": b"token"}


async def test_what_the_ledger_has_is_forgotten(world: World):
    await world.settle_one()
    first = world.state.client.xinfo_stream(keyspace.usage(world.principal.shard))["last-generated-id"]
    second = await world.settle_one()
    world.state.client.set(keyspace.drained(world.principal.shard), first)
    await world.announcements.look_at_ledger()
    assert [kept.lease_id for kept in world.settlements.retained.of(world.principal.shard)] == [second]


async def test_many_events_and_leases_go_in_several_calls(world: World):
    settled = {await world.settle_one() for _ in range(450)}
    principal: Principal = world.state.principal(concurrent=None, tenant_concurrent=None)
    world.principal = principal
    world.lose_everything()
    world.state.client.set(keyspace.rebuild_token(world.principal.shard), "token")
    for shard in keyspace.SHARDS:
        world.state.client.set(keyspace.rebuild_token(shard), "token")
    await world.announcements.tell(keyspace.SHARDS)
    found = {
        event_id
        for shard in keyspace.SHARDS
        for event_id in (
            name.decode().rpartition(":")[2] for name in world.state.client.keys(keyspace.lease(shard, LeaseId("*")))
        )
    }
    assert found == settled


async def test_repeated_settlement_names_the_entry_of_the_first(world: World):
    caller = Caller(world.state, world.principal)
    caller.acquire("one")
    caller.settle("one")
    [(entry_id, _)] = world.state.client.xrange(keyspace.usage(world.principal.shard))
    assert world.state.client.get(keyspace.lease(world.principal.shard, LeaseId("one"))) == b"settled " + entry_id


def test_the_oldest_are_forgotten_when_too_many_are_kept():
    retained = Retained(capacity=3)
    for number in range(5):
        retained.keep(SHARD, b"%d-0" % number, RetainedEvent(LeaseId(str(number)), b"{}"))
    assert [kept.lease_id for kept in retained.of(SHARD)] == ["2", "3", "4"]
    retained.drained(SHARD, b"3-0")
    retained.drained(SHARD, None)
    retained.drained(SHARD, b"what")
    assert [kept.lease_id for kept in retained.of(SHARD)] == ["4"]
    retained.keep(SHARD, b"", RetainedEvent(LeaseId("x"), b"{}"))
    assert len(retained) == 1


def test_a_correction_belongs_to_the_lease_that_it_corrects():
    assert retained_event(event("one:c", outcome="correction")).lease_id == "one"
