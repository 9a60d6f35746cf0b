"""One stream: what is said first, what follows, and how it ends."""

import asyncio
from typing import Any

import grpc
import pytest
from redis.asyncio import Redis as RedisClient

from controlplane.core.changes import Change, ChangeKind
from dataplane.state.store import StateRejectedError
from neuronetz.state.v1 import state_pb2 as pb
from neuronetz.state.v1 import state_pb2_grpc
from shared import keyspace, records
from shared.records import BackendRecord, ConfigRecord, DiscoveredRecord
from tests.fakes.waiting import until
from tests.integration.watch.conftest import (
    LIVELY_S,
    RawStream,
    Replica,
    Served,
    eventually,
    record_of,
    watching,
)

KEY = Change(kind=ChangeKind.KEY, id="k1", version=-2)
CONFIG = ConfigRecord(revision=1, backends=(BackendRecord(name="one", url="http://127.0.0.1:1"),))
DISCOVERED = DiscoveredRecord(revision=5, expires_at_ms=0)


async def publish(client: RedisClient) -> None:
    await client.set(keyspace.CONFIG, records.encode(CONFIG))
    await client.set(keyspace.MODELS_DISCOVERED, records.encode(DISCOVERED), px=60_000)


@pytest.fixture
async def published(client: RedisClient) -> None:
    await publish(client)


async def test_a_new_worker_gets_everything_and_then_heartbeats(published, lively):
    async with RawStream(lively.address) as stream:
        await stream.hello()
        snapshot = (await stream.next()).snapshot
        assert snapshot.config == records.encode(CONFIG)
        assert snapshot.discovered == records.encode(DISCOVERED)
        assert 50_000 < snapshot.discovered_valid_ms <= 60_000
        assert snapshot.revision == lively.hub.revision
        for _ in range(2):
            assert (await stream.next("heartbeat")).heartbeat.revision == snapshot.revision


async def test_the_unary_twin_gives_the_same(published, served):
    async with RawStream(served.address) as stream:
        await stream.hello()
        snapshot = (await stream.next()).snapshot
        twin = await state_pb2_grpc.StateServiceStub(stream.channel).GetSnapshot(pb.GetSnapshotRequest())
    assert (twin.snapshot.revision, twin.snapshot.config) == (snapshot.revision, snapshot.config)
    assert twin.snapshot.discovered == snapshot.discovered


async def test_without_anything_published_a_snapshot_is_empty(served):
    async with RawStream(served.address) as stream:
        await stream.hello()
        snapshot = (await stream.next()).snapshot
    assert (snapshot.config, snapshot.discovered, snapshot.discovered_valid_ms) == (b"", b"", 0)


async def test_changes_come_in_order_of_their_revisions(served):
    async with RawStream(served.address) as stream:
        await stream.hello()
        await stream.next("snapshot")
        announced = [
            await served.hub.announce(change)
            for change in (
                KEY,
                Change(kind=ChangeKind.TENANT, id="t1", version=7),
                Change(kind=ChangeKind.KEY, id="k2", version=3),
            )
        ]
        told = [(await stream.next("change")).change for _ in announced]
    assert [change.revision for change in told] == announced == sorted(announced)
    assert told[0].key == pb.VersionChange(id="k1", version=2, refused=True)
    assert told[1].tenant == pb.VersionChange(id="t1", version=7, refused=False)
    assert told[2].key == pb.VersionChange(id="k2", version=3, refused=False)


async def test_changed_backends_and_models_come_as_they_are_now(client, served):
    async with RawStream(served.address) as stream:
        await stream.hello()
        await stream.next("snapshot")
        await publish(client)
        await served.hub.announce(Change(kind=ChangeKind.CONFIG))
        await served.hub.announce(Change(kind=ChangeKind.DISCOVERED))
        config, discovered = (await stream.next("change")).change, (await stream.next("change")).change
    assert config.config == records.encode(CONFIG)
    assert discovered.discovered.record == records.encode(DISCOVERED)
    assert 50_000 < discovered.discovered.valid_ms <= 60_000


async def test_a_worker_that_was_away_for_a_moment_is_told_what_it_has_missed(client, served):
    first = await served.hub.announce(KEY)
    await until(lambda: served.hub.revision == first)
    second = await served.hub.announce(Change(kind=ChangeKind.KEY, id="k2", version=-4))
    await publish(client)
    await served.hub.announce(Change(kind=ChangeKind.CONFIG))
    third = await served.hub.announce(Change(kind=ChangeKind.CONFIG))
    await until(lambda: served.hub.revision == third)
    async with RawStream(served.address) as stream:
        await stream.hello(first)
        told = [(await stream.next("change", "snapshot")).change for _ in range(2)]
        assert [change.revision for change in told] == [second, third]
        assert (told[0].key.id, told[1].config) == ("k2", records.encode(CONFIG))
        assert (await stream.next("heartbeat", "change")).heartbeat.revision == third


@pytest.mark.parametrize("ahead", [True, False])
async def test_a_worker_with_a_revision_that_is_not_in_our_history_gets_a_snapshot(served, ahead):
    await served.hub.announce(KEY)
    revision = await served.hub.announce(KEY)
    await until(lambda: served.hub.revision == revision)
    if not ahead:
        served.hub._history.begin(revision)
    async with RawStream(served.address) as stream:
        await stream.hello(revision + 100 if ahead else revision - 1)
        assert (await stream.next()).snapshot.revision == revision


async def test_what_was_before_a_restart_is_still_told(client, served):
    revisions = [await served.hub.announce(Change(kind=ChangeKind.KEY, id=f"k{n}", version=-1)) for n in range(5)]
    async with Served(client).serving() as restarted, RawStream(restarted.address) as stream:
        assert restarted.hub.revision == revisions[-1]
        await stream.hello(revisions[2])
        assert [(await stream.next()).change.revision for _ in range(2)] == revisions[3:]


async def test_a_worker_is_known_by_what_it_says(lively):
    replica = Replica([lively.address], heartbeat_s=LIVELY_S)
    replica.learnt.apply_change = lambda change: 3 if change.key.refused else 0
    async with watching(replica):
        replica.in_flight = 4
        revision = await lively.hub.announce(KEY)
        await until(lambda: replica.revision == revision)

        async def known():
            record = await record_of(lively.replicas, replica.worker_id)
            return record if record is not None and record.revision == revision and record.in_flight == 4 else None

        record = await eventually(known)
    assert (record.address, record.version, record.control_plane) == ("127.0.0.1:8080", "1.0", "one")
    assert record.streams_cut[revision] == 3
    assert record.ready
    assert record.rejected == ""
    assert record.seen_at_ms > 0


async def test_a_rejected_revision_keeps_the_last_good_one_until_another_is_applied(served):
    replica = Replica([served.address])
    async with watching(replica):
        good = replica.revision

        def refuse(_: pb.Change) -> int:
            raise StateRejectedError("unreadable")

        replica.learnt.apply_change = refuse
        bad = await served.hub.announce(KEY)
        (worker,) = served.workers._connected.values()
        await until(lambda: worker.record.rejected)
        assert worker.record.rejected == f"{bad}: unreadable"
        assert worker.record.revision == good == replica.revision
        replica.learnt.apply_change = lambda _: 0
        better = await served.hub.announce(KEY)
        await until(lambda: worker.record.revision == better)
        assert worker.record.rejected == ""
    assert served.metric("gateway_watch_rejections_total") == 1


async def test_rejected_backends_are_not_made_good_by_a_change_of_a_key(client, served):
    replica = Replica([served.address])

    def refuse_backends(change: pb.Change) -> int:
        if change.HasField("config"):
            raise StateRejectedError("unreadable")
        return 0

    async with watching(replica):
        replica.learnt.apply_change = refuse_backends
        await publish(client)
        bad = await served.hub.announce(Change(kind=ChangeKind.CONFIG))
        good = await served.hub.announce(KEY)
        (worker,) = served.workers._connected.values()
        await until(lambda: worker.record.revision == good)
        assert worker.record.rejected == f"{bad}: unreadable"
        await served.hub.announce(Change(kind=ChangeKind.DISCOVERED))
        await until(lambda: not worker.record.rejected)


async def test_acknowledgements_wake_whoever_waits_for_them(served):
    async with watching(Replica([served.address])):
        waiting = asyncio.create_task(served.workers.changed())
        await asyncio.sleep(0)
        revision = await served.hub.announce(KEY)
        async with asyncio.timeout(30):
            await waiting
        await until(lambda: served.workers.records[0].revision == revision)
    await until(lambda: not served.workers.records)


@pytest.mark.parametrize(
    "first",
    [
        {"heartbeat": pb.WorkerHeartbeat()},
        {"hello": pb.Hello()},
        {"hello": pb.Hello(worker_id="w" * 301)},
        {"hello": pb.Hello(worker_id="w", revision=-1)},
    ],
)
async def test_whoever_does_not_say_who_it_is_is_not_served(served, first):
    async with RawStream(served.address) as stream:
        await stream.say(**first)
        assert await stream.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_what_cannot_be_read_ends_the_stream(served):
    async with grpc.aio.insecure_channel(served.address) as channel:
        call: Any = channel.stream_stream("/neuronetz.state.v1.StateService/Watch")()
        await call.write(pb.WatchRequest(hello=pb.Hello(worker_id="w")).SerializeToString())
        await call.read()
        await call.write(b"\xff\xff\xff")
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_worker_that_falls_silent_is_given_up(lively):
    async with RawStream(lively.address) as stream:
        await stream.hello()
        await stream.next("snapshot")
        assert lively.workers.records
        assert await stream.code() is grpc.StatusCode.UNAVAILABLE
        await until(lambda: not lively.workers.records)
    assert lively.metric("gateway_watch_workers_lost_total") == 1
    assert lively.metric("gateway_watchers") == 0


async def test_a_worker_that_leaves_is_forgotten_by_the_hub(served):
    async with RawStream(served.address) as stream:
        await stream.hello()
        await stream.next("snapshot")
    await until(lambda: not served.workers.records and served.metric("gateway_watchers") == 0)


async def test_a_worker_that_drains_and_leaves_is_no_longer_counted_with(lively):
    replica = Replica([lively.address], heartbeat_s=LIVELY_S)
    async with watching(replica):
        await eventually(lambda: record_of(lively.replicas, replica.worker_id))
        replica.readiness.start_draining()
        (worker,) = lively.workers._connected.values()
        await until(lambda: worker.draining)

    async def gone():
        return await record_of(lively.replicas, replica.worker_id) is None

    await eventually(gone)


async def test_a_slow_watcher_is_told_to_begin_anew_and_holds_up_nobody(client, database):
    async with (
        Served(client, queue_capacity=50, heartbeat_s=2).serving() as served,
        RawStream(served.address) as slow,
        watching(quick := Replica([served.address])),
    ):
        await slow.hello(worker_id="slow")
        await slow.next("snapshot")
        number = 0
        async with asyncio.timeout(30):
            while not any(watcher.resync_reason for watcher in served.hub._watchers):
                number += 1
                revision = await served.hub.tell(Change(kind=ChangeKind.KEY, id=f"{number:05000}", version=1))
        await until(lambda: quick.revision == revision)
        assert len(quick.learnt.changes) == number
        assert "too slowly" in (await slow.next("resync")).resync.reason
        assert await slow.code() is grpc.StatusCode.OK
        await until(lambda: served.metric("gateway_watchers") == 1)
    assert served.metric("gateway_watch_resyncs_total") == 1


async def test_a_worker_that_reads_nothing_at_all_is_given_up(client, database):
    async with Served(client, heartbeat_s=0.3).serving() as served, RawStream(served.address) as stream:
        await stream.hello()
        await stream.next("snapshot")

        async def beat() -> None:
            while True:
                await stream.say(heartbeat=pb.WorkerHeartbeat())
                await asyncio.sleep(0.1)

        beating = asyncio.create_task(beat())
        async with asyncio.timeout(30):
            number = 0
            while served.hub._watchers:
                number += 1
                await served.hub.tell(Change(kind=ChangeKind.KEY, id=f"{number:05000}", version=1))
        await until(lambda: not served.workers.records)
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
    assert served.metric("gateway_watch_workers_lost_total") == 1
