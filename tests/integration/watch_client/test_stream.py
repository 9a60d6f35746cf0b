"""What is said on the stream, in which order, and what becomes of a stream that is no good."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import grpc
import pytest

from dataplane.quota.link import Link
from dataplane.state.control import credentials_of
from neuronetz.state.v1 import state_pb2
from shared import records
from tests.fakes.authority import Authority
from tests.fakes.state_server import StateServer, key_change, serving, snapshot
from tests.fakes.tcp_proxy import proxied
from tests.fakes.waiting import until
from tests.integration.watch_client.conftest import OPENING, Worker, config, discovered


def config_change(revision: int, raw: bytes | None = None) -> state_pb2.WatchResponse:
    raw = records.encode(config(revision)) if raw is None else raw
    return state_pb2.WatchResponse(change=state_pb2.Change(revision=revision, config=raw))


def discovered_change(revision: int, *names: str) -> state_pb2.WatchResponse:
    found = state_pb2.Discovered(record=records.encode(discovered(revision, *names)), valid_ms=60_000)
    return state_pb2.WatchResponse(change=state_pb2.Change(revision=revision, discovered=found))


def server_credentials(authority: Authority, *, asks_for_certificates: bool) -> grpc.ServerCredentials:
    cert, key = (Path(path).read_bytes() for path in authority.issue("server"))
    return grpc.ssl_server_credentials(
        [(key, cert)],
        root_certificates=Path(authority.cert).read_bytes() if asks_for_certificates else None,
        require_client_auth=asks_for_certificates,
    )


async def test_worker_says_who_it_is_and_takes_the_snapshot(unconnected: Link, server: StateServer):
    async with Worker(unconnected, [server.address]).watching() as worker:
        stream = await server.stream()
        hello = stream.hello
        assert (hello.worker_id, hello.address, hello.version, hello.pid) == ("w-1", "127.0.0.1:8080", "1.2.3", 4711)
        assert hello.revision == 0
        acknowledgement = await stream.acknowledgement(7)
        assert (acknowledgement.streams_cut, worker.names) == (0, ["llama3"])
        assert acknowledgement.applied_in_us >= 0
        assert worker.watch.is_current
        assert worker.readiness.ready


async def test_changes_are_applied_and_acknowledged_in_their_order(unconnected: Link, server: StateServer):
    async with Worker(unconnected, [server.address]).watching() as worker:
        stream = await server.stream()
        stream.say(config_change(8), discovered_change(9, "qwen3:4b"), key_change(10, "key", 2))
        await stream.acknowledgement(10)
        assert stream.acknowledged == [7, 8, 9, 10]
        assert (worker.names, worker.watch.revision) == (["qwen3:4b"], 10)


async def test_state_that_is_older_than_what_redis_brought_changes_nothing(unconnected: Link, server: StateServer):
    worker = Worker(unconnected, [server.address])
    newer = records.encode(discovered(20, "qwen3:4b"))
    worker.store.take(config=records.encode(config(20)), discovered=newer, valid_for_s=60)
    async with worker.watching():
        stream = await server.stream()
        await stream.acknowledgement(7)
        assert worker.names == ["qwen3:4b"]
        stream.say(discovered_change(21, "gemma3:4b"))
        await stream.acknowledgement(21)
        assert worker.names == ["gemma3:4b"]


@pytest.mark.parametrize(
    "bad",
    [
        config_change(8, b"{"),
        state_pb2.WatchResponse(snapshot=state_pb2.Snapshot(revision=8, config=b"[]")),
        key_change(8, "", 2),
        key_change(8, "key", 0),
    ],
)
async def test_bad_state_is_rejected_and_the_last_good_one_stays(
    unconnected: Link, server: StateServer, bad: state_pb2.WatchResponse
):
    async with Worker(unconnected, [server.address]).watching() as worker:
        stream = await server.stream()
        stream.say(bad)
        await until(lambda: stream.rejections)
        assert stream.rejections[0].revision == 8
        assert stream.rejections[0].reason
        assert (worker.names, worker.watch.revision) == (["llama3"], 7)
        stream.say(discovered_change(9, "qwen3:4b"))
        await stream.acknowledgement(9)
        assert worker.names == ["qwen3:4b"]
        assert 8 not in stream.acknowledged


async def test_fault_of_our_own_rejects_the_state_and_spares_the_worker(
    unconnected: Link, server: StateServer, monkeypatch: pytest.MonkeyPatch
):
    async with Worker(unconnected, [server.address]).watching() as worker:
        stream = await server.stream()
        await stream.acknowledgement(7)
        monkeypatch.setattr(worker.models, "replace", lambda *_, **__: 1 / 0)
        stream.say(discovered_change(8, "qwen3:4b"))
        await until(lambda: stream.rejections)
        assert stream.rejections[0].reason == "it could not be applied"
        assert worker.names == ["llama3"]


async def test_kind_of_a_newer_release_is_ignored(unconnected: Link, server: StateServer):
    async with Worker(unconnected, [server.address]).watching():
        stream = await server.stream()
        stream.say(state_pb2.WatchResponse(), state_pb2.WatchResponse(change=state_pb2.Change(revision=8)))
        await stream.acknowledgement(8)
        assert stream.rejections == []


async def test_heartbeats_tell_how_the_worker_is(unconnected: Link, server: StateServer):
    async with Worker(unconnected, [server.address], heartbeat_s=0.3).watching() as worker:
        stream = await server.stream()
        await until(lambda: stream.heartbeats and stream.heartbeats[-1].revision == 7)
        latest = stream.heartbeats[-1]
        assert (latest.in_flight, latest.ready, latest.draining) == (0, True, False)
        assert stream.received[0].HasField("hello")
        worker.readiness.report("models", holds=False)
        await until(lambda: not stream.heartbeats[-1].ready)


async def test_draining_is_said_at_once_and_the_watch_goes_on(unconnected: Link, server: StateServer):
    server.heartbeat_s = 5.0
    async with Worker(unconnected, [server.address], heartbeat_s=20).watching() as worker:
        stream = await server.stream()
        await stream.acknowledgement(7)
        worker.readiness.start_draining()
        await until(lambda: stream.heartbeats[-1].draining)
        stream.say(key_change(8, "key", 2))
        await stream.acknowledgement(8)


async def test_resync_starts_a_new_stream_with_the_revision_that_is_there(unconnected: Link, server: StateServer):
    async with Worker(unconnected, [server.address]).watching():
        stream = await server.stream()
        await stream.acknowledgement(7)
        stream.say(state_pb2.WatchResponse(resync=state_pb2.Resync(reason="too slow")))
        second = await server.stream(1)
        assert second.hello.revision == 7
        await second.acknowledgement(7)


async def test_snapshot_of_a_replica_that_lags_does_not_turn_the_revision_back(unconnected: Link, server: StateServer):
    async with Worker(unconnected, [server.address]).watching() as worker:
        stream = await server.stream()
        await stream.acknowledgement(7)
        stream.say(snapshot(5, config(5, "two"), discovered(5, "qwen3:4b")))
        await stream.acknowledgement(5)
        assert (worker.names, worker.watch.revision) == (["llama3"], 7)


@pytest.mark.parametrize("status", list(grpc.StatusCode)[1:])
async def test_no_refusal_ends_the_watch(unconnected: Link, server: StateServer, status: grpc.StatusCode):
    server.refusal = status
    async with Worker(unconnected, [server.address]).watching() as worker:
        await until(lambda: worker.watch._problems.get(server.address) == status.name)
        assert not worker.watch.is_current
        server.refusal = None
        await (await server.stream()).acknowledgement(7)


async def test_wrong_token_sees_nothing(unconnected: Link, server: StateServer):
    async with Worker(unconnected, [server.address], token="another").watching() as worker:
        await until(lambda: worker.watch._problems.get(server.address) == "UNAUTHENTICATED")
        assert not worker.readiness.ready
        assert server.streams == []


async def test_another_control_plane_takes_over_when_one_goes(unconnected: Link):
    one, two = StateServer(OPENING), StateServer(OPENING)
    async with (
        serving(one),
        serving(two),
        Worker(unconnected, [one.address, two.address]).watching() as worker,
    ):
        await until(lambda: one.streams or two.streams)
        first, second = (one, two) if one.streams else (two, one)
        await first.streams[0].acknowledgement(7)
        await first.stop()
        assert (await second.stream()).hello.revision == 7
        await until(lambda: worker.watch.is_current)
        await first.start()
        await second.stop()
        await first.stream(1)
        await second.start()


async def test_control_plane_that_comes_later_is_found(unconnected: Link):
    server = StateServer(OPENING)
    async with serving(server):
        pass
    async with Worker(unconnected, [server.address]).watching() as worker:
        await until(lambda: worker.watch._problems)
        async with serving(server):
            await (await server.stream()).acknowledgement(7)


async def test_three_missed_heartbeats_are_the_end_of_a_stream(unconnected: Link, server: StateServer):
    async with Worker(unconnected, [server.address], heartbeat_s=0.1).watching() as worker:
        stream = await server.stream()
        await stream.acknowledgement(7)
        server.silent = True
        silent_since_s = time.monotonic()
        await server.stream(1)
        assert time.monotonic() - silent_since_s > 0.2
        await until(lambda: not stream.is_open)
        server.silent = False
        await until(lambda: worker.watch.is_current)


@pytest.mark.parametrize("direction", ["replies", "both"])
async def test_black_hole_is_left_for_another_connection(unconnected: Link, server: StateServer, direction: str):
    host, _, port = server.address.rpartition(":")
    async with (
        proxied(host, int(port)) as proxy,
        Worker(unconnected, [f"127.0.0.1:{proxy.port}"], heartbeat_s=0.1).watching() as worker,
    ):
        await (await server.stream()).acknowledgement(7)
        proxy.swallow_replies = True
        proxy.swallow_requests = direction == "both"
        await until(lambda: not worker.watch.is_current)
        await until(lambda: proxy.connections >= 2)
        proxy.swallow_replies = proxy.swallow_requests = False
        await until(lambda: worker.watch.is_current, timeout_s=10)


async def test_connection_that_is_reset_is_made_anew(unconnected: Link, server: StateServer):
    host, _, port = server.address.rpartition(":")
    async with proxied(host, int(port)) as proxy, Worker(unconnected, [f"127.0.0.1:{proxy.port}"]).watching():
        await (await server.stream()).acknowledgement(7)
        proxy.reset()
        assert (await server.stream(1)).hello.revision == 7


async def test_control_plane_that_does_not_read_is_left(
    unconnected: Link, server: StateServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("dataplane.state.watch.MAX_UNSENT", 100)
    server.is_deaf = True
    async with Worker(unconnected, [server.address]).watching() as worker:
        stream = await server.stream()
        await until(lambda: bool(stream.received))
        # The first stream stays deaf, its successor is heard.
        server.is_deaf = False
        stream.say(*(key_change(revision, "key", revision) for revision in range(8, 20_000)))
        await (await server.stream(1)).acknowledgement(7)
    assert worker.watch.counts.streams == 2


@pytest.mark.parametrize("with_certificate", [True, False])
async def test_certificates_are_asked_for_on_both_sides(unconnected: Link, tmp_path, with_certificate: bool):
    authority = Authority(tmp_path, "authority")
    own_cert, own_key = authority.issue("worker") if with_certificate else (None, None)
    credentials = credentials_of(ca=authority.cert, cert=own_cert, key=own_key)
    server = StateServer(OPENING)
    async with (
        serving(server, server_credentials(authority, asks_for_certificates=True)),
        Worker(unconnected, [server.address], credentials=credentials).watching() as worker,
    ):
        if with_certificate:
            await (await server.stream()).acknowledgement(7)
        else:
            await until(lambda: worker.watch._problems.get(server.address) == "UNAVAILABLE")
            assert server.streams == []


async def test_server_of_another_authority_is_not_believed(unconnected: Link, tmp_path):
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    credentials = credentials_of(ca=ours.cert, cert=None, key=None)
    server = StateServer(OPENING)
    async with (
        serving(server, server_credentials(theirs, asks_for_certificates=False)),
        Worker(unconnected, [server.address], credentials=credentials).watching() as worker,
    ):
        await until(lambda: worker.watch._problems.get(server.address) == "UNAVAILABLE")
        assert server.streams == []


def test_missing_file_is_no_plaintext(tmp_path):
    with pytest.raises(FileNotFoundError):
        credentials_of(ca=str(tmp_path / "missing.pem"), cert=None, key=None)
    assert credentials_of(ca=None, cert=None, key=None) is None


async def test_without_control_planes_there_is_nothing_to_watch(unconnected: Link):
    worker = Worker(unconnected, [])
    async with asyncio.timeout(10):
        await worker.watch.run()
    assert not worker.watch.is_current
