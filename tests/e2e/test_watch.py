"""Changes are felt at once: two data planes that watch two control planes, and what is left when the push is not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import statistics
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self
from urllib.parse import urlsplit

import asyncpg
import grpc
import httpx
import psutil
import pytest
from google.protobuf.duration_pb2 import Duration

from deploy.local.ports import free_port
from neuronetz.admin.v1 import key_pb2, publication_pb2
from shared import keyspace, logs
from tests.canaries import PROMPT
from tests.e2e.crowd import Answer, Client, Traffic, ask_all, chat
from tests.e2e.harness import Gateway, MockOllama, bearer, eventually, is_ready, running
from tests.e2e.streams import OpenStream, open_streams
from tests.fakes.tcp_proxy import proxy_in_a_thread

# What is asked for is half a second and twelve; both share two cores with everything that runs beside them. Without the
# push the streams, which have just begun, are cut after ten seconds, and without a renewal after twenty-five.
CUT_WITHIN_S = 6.0
CUT_WITHOUT_PUSH_WITHIN_S = 20.0
REPETITIONS = 12
log = logs.get(__name__)

ONE_REPLY = {"model": "llama3.2", "messages": [{"role": "user", "content": PROMPT}], "stream": False}


@pytest.fixture(scope="module")
def watch_mock() -> Iterator[MockOllama]:
    with running(MockOllama("watch")) as mock:
        yield mock


@pytest.fixture(scope="module")
def pair(watch_mock, tmp_path_factory) -> Iterator[Gateway]:
    options = (
        "--control-replicas=2",
        "--set=MODEL_DISCOVERY_CACHE_TTL_S=900",
        "--set=GATEWAY_DRAIN_TIMEOUT_S=3",
    )
    with running(Gateway(tmp_path_factory.mktemp("watch"), [watch_mock], *options, replicas=2)) as gateway:
        gateway.tenant("watch")
        gateway.wait_for_models(gateway.key("watch"), "llama3.2:latest")
        wait_for_workers(gateway)
        yield gateway


@pytest.fixture
def endless(watch_mock) -> Iterator[MockOllama]:
    """Replies that take minutes."""
    watch_mock.reset()
    watch_mock.settings(tokens=3000, record_delay_ms=20)
    yield watch_mock
    watch_mock.reset()


def workers(gateway: Gateway) -> list[dict[str, Any]]:
    """The workers that some control plane has heard of in the last six seconds."""
    seconds, micros = gateway.redis.time()
    since_ms = int(seconds) * 1000 + int(micros) // 1000 - 6000
    entries = [json.loads(entry) for entry in gateway.redis.hgetall(keyspace.REPLICAS).values()]
    return [entry for entry in entries if entry["seen_at_ms"] >= since_ms]


def wait_for_workers(gateway: Gateway, count: int = 2) -> None:
    eventually(lambda: len(workers(gateway)) == count, timeout_s=60, what=f"{count} workers that watch")


def status(url: str, api_key: str) -> int:
    return httpx.post(
        f"{url}/api/chat", json=ONE_REPLY, headers=bearer(api_key), timeout=30, trust_env=False
    ).status_code


def statuses(gateway: Gateway, api_key: str) -> set[int]:
    return {status(url, api_key) for url in gateway.urls}


def revoke(gateway: Gateway, api_key: str) -> key_pb2.RevokeKeyResponse:
    request = key_pb2.RevokeKeyRequest(prefix=api_key[:12], reason="a test")
    return gateway._keys.RevokeKey(request, metadata=gateway._metadata, timeout=60)


@contextlib.contextmanager
def confirmed_by_every_worker(gateway: Gateway, *, cut: int) -> Iterator[None]:
    """Every worker acknowledges what happens in the block, and together they cut so many streams because of it."""
    since = max(worker["revision"] for worker in workers(gateway))
    yield

    def confirmed() -> bool:
        now = workers(gateway)
        streams = [worker["streams_cut"].items() for worker in now]
        # Who was heard of for the last time six seconds ago is no worker, and on a busy machine one again soon.
        everybody = {worker["address"] for worker in now} == {urlsplit(url).netloc for url in gateway.urls}
        counted = sum(count for each in streams for revision, count in each if int(revision) > since)
        return everybody and counted == cut and all(worker["revision"] > since for worker in now)

    eventually(confirmed, what=f"that {cut} streams were cut")


def assert_cut(streams: list[OpenStream], since_s: float, *, within_s: float = CUT_WITHIN_S) -> list[float]:
    """Each stream ended with one error event; gives the seconds that it took."""
    took = [stream.wait(within_s) - since_s for stream in streams]
    assert all(stream.was_cut for stream in streams), [stream.lines[-1:] for stream in streams]
    assert max(took) <= within_s
    return took


def audit_rows(gateway: Gateway, tenant: str, count: int) -> list[asyncpg.Record]:
    """What the ledger says of requests that were admitted, once there are that many."""
    query = (
        "SELECT a.outcome, a.provenance, a.completion_tokens, a.total_tokens FROM gateway.audit_log a "
        "JOIN gateway.tenants t ON t.id = a.tenant_id WHERE t.name = $1 AND a.outcome <> 'refused'"
    )

    def all_of_them() -> list[asyncpg.Record]:
        rows = gateway.rows(query, tenant)
        return rows if len(rows) >= count else []

    return eventually(all_of_them, timeout_s=60, what=f"{count} audit rows")


def fresh(gateway: Gateway) -> tuple[str, str]:
    tenant = f"w-{uuid.uuid4().hex[:10]}"
    gateway.tenant(tenant, budget_total=1_000_000_000)
    return tenant, gateway.key(tenant)


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
def test_a_revoked_key_loses_its_open_streams_on_every_replica(pair, endless, path):
    tenant, key = fresh(pair)
    spared = OpenStream(pair.urls[0], pair.key(tenant)).start()
    streams = open_streams(pair.urls, key, each=3, path=path)
    with confirmed_by_every_worker(pair, cut=6):
        asked_at_s = time.monotonic()
        response = revoke(pair, key)
        endless.settings(tokens=24, record_delay_ms=0)
        assert statuses(pair, key) == {401}
        assert_cut(streams, asked_at_s)
    assert response.publication == publication_pb2.PUBLICATION_APPLIED
    assert not spared.ended
    rows = audit_rows(pair, tenant, 6)
    assert {row["outcome"] for row in rows} == {"cut"}
    assert all(row["completion_tokens"] > 0 and row["provenance"] == "counted" for row in rows)
    revoke(pair, pair.key(tenant))
    pair.suspend_tenant(tenant)
    spared.wait(CUT_WITHIN_S)
    eventually(lambda: pair.open_leases() == 0, what="that no lease is left")


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
def test_who_waits_for_a_whole_reply_when_the_key_is_revoked_is_told_so(pair, endless, path):
    tenant, key = fresh(pair)
    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(ask_all, [url], key, [chat()], path) for url in pair.urls]
        eventually(lambda: pair.open_leases() == len(waiting), what="requests in flight")
        revoke(pair, key)
        [answers] = zip(*(each.result(CUT_WITHIN_S) for each in waiting), strict=True)
    assert {answer.status for answer in answers} == {401}
    assert {row["outcome"] for row in audit_rows(pair, tenant, 2)} == {"cut"}


def test_a_suspended_tenant_loses_the_open_streams_of_all_its_keys(pair, endless):
    tenant, key = fresh(pair)
    other = pair.key(tenant)
    streams = open_streams(pair.urls, key) + open_streams(pair.urls, other)
    with confirmed_by_every_worker(pair, cut=4):
        asked_at_s = time.monotonic()
        pair.suspend_tenant(tenant)
        assert statuses(pair, key) == statuses(pair, other) == {401}
        assert_cut(streams, asked_at_s)
    endless.settings(tokens=24, record_delay_ms=0)
    pair.resume_tenant(tenant)
    assert statuses(pair, key) == {200}


def test_a_rotated_key_ends_at_once_and_the_new_one_serves(pair, watch_mock):
    watch_mock.reset()
    _, key = fresh(pair)
    assert statuses(pair, key) == {200}
    with confirmed_by_every_worker(pair, cut=0):
        request = key_pb2.RotateKeyRequest(prefix=key[:12], overlap=Duration(seconds=0))
        response = pair._keys.RotateKey(request, metadata=pair._metadata, timeout=60)
        assert statuses(pair, key) == {401}
        assert statuses(pair, response.api_key) == {200}


def test_a_changed_limit_holds_on_the_next_request_and_ends_no_stream(pair, endless):
    _, key = fresh(pair)
    streams = open_streams(pair.urls, key)
    pair.update_key(key, concurrent=2)
    assert statuses(pair, key) == {429}
    endless.settings(tokens=24, record_delay_ms=0)
    pair.update_key(key, concurrent=4)
    assert statuses(pair, key) == {200}
    assert not any(stream.ended for stream in streams)
    revoke(pair, key)
    assert_cut(streams, time.monotonic())


def test_a_row_of_another_service_is_a_revocation(pair, endless):
    tenant, key = fresh(pair)
    streams = open_streams(pair.urls, key)
    inserted_at_s = time.monotonic()
    pair.rows(
        "INSERT INTO gateway.revocations (key_id, reason) SELECT id, 'lost' FROM gateway.api_keys WHERE prefix = $1",
        key[:12],
    )
    assert_cut(streams, inserted_at_s)
    assert statuses(pair, key) == {401}
    assert {row["outcome"] for row in audit_rows(pair, tenant, 2)} == {"cut"}


def test_nobody_is_admitted_after_the_answer_and_streams_end_soon(pair, endless):
    """Again and again, with traffic: the distribution goes to the output, for people."""
    admitted, cut, answered = [], [], []
    for _ in range(REPETITIONS):
        _, key = fresh(pair)
        streams = open_streams(pair.urls, key, each=2)
        asked_at_s = time.monotonic()
        revoke(pair, key)
        answered_at_s = time.monotonic()
        answered.append(answered_at_s - asked_at_s)
        admitted += [code for code in statuses(pair, key) if code != 401]
        cut += assert_cut(streams, asked_at_s)
    assert admitted == []
    for what, values in (("answered", answered), ("cut", cut)):
        ordered = sorted(1000 * value for value in values)
        log.info(
            "revocations_timed", what=what, median_ms=round(statistics.median(ordered)), longest_ms=round(ordered[-1])
        )


@contextlib.contextmanager
def frozen_control_planes(gateway: Gateway) -> Iterator[None]:
    """They hold their connections and say nothing: worse than being gone."""
    pids = children(gateway, "controlplane")
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def children(gateway: Gateway, role: str) -> list[int]:
    """The processes of one role that the stack runs now, in the order of their start."""
    found = []
    for child in psutil.Process(gateway.description["pids"]["up"][0]).children():
        with contextlib.suppress(psutil.Error):
            # Between fork and exec, and at its end, a process has none.
            if child.cmdline()[-1:] == [role]:
                found.append(child.pid)
    return found


def test_without_control_planes_requests_go_on_and_a_new_worker_serves_from_redis(pair, watch_mock):
    watch_mock.reset()
    _, key = fresh(pair)
    assert statuses(pair, key) == {200}
    with frozen_control_planes(pair), Traffic(pair.urls[:1], key, clients=4, rest_s=0.05) as traffic:
        victim = pair.worker(1)
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: not _runs(victim), what="the end of a worker")
        eventually(lambda: is_ready(pair.urls[1]), timeout_s=60, what="a worker that knows Redis alone")
        assert status(pair.urls[1], key) == 200
    assert {answer.status for answer in traffic.answers} == {200}
    wait_for_workers(pair)
    watch_mock.settings(tokens=3000, record_delay_ms=20)
    streams = open_streams(pair.urls, key)
    with confirmed_by_every_worker(pair, cut=2):
        asked_at_s = time.monotonic()
        revoke(pair, key)
        assert_cut(streams, asked_at_s)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_without_control_planes_and_postgres_nothing_fails_for_a_long_time(pair, watch_mock, outage_s):
    watch_mock.reset()
    _, key = fresh(pair)
    assert statuses(pair, key) == {200}
    with Traffic(pair.urls[:1], key, clients=10, rest_s=0.1) as traffic:
        pair.signal_server("postgres", signal.SIGQUIT)
        for pid in children(pair, "controlplane"):
            os.kill(pid, signal.SIGKILL)
        gone_at_s = time.monotonic()
        victim = pair.worker(1)
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: not _runs(victim), what="the end of a worker")
        eventually(lambda: is_ready(pair.urls[1]), timeout_s=60, what="a worker that knows Redis alone")
        assert status(pair.urls[1], key) == 200
        eventually(lambda: time.monotonic() - gone_at_s >= outage_s, timeout_s=outage_s + 1)
        assert status(pair.urls[1], key) == 200
        pair.start_again("postgres.cmd")
        wait_for_workers(pair)
    refused = [answer for answer in traffic.answers if answer.status != 200]
    assert [(answer.asked_at_s - gone_at_s, answer.took_s, answer.body) for answer in refused] == []
    assert len(traffic.answers) > 5 * outage_s
    revoke(pair, key)
    assert statuses(pair, key) == {401}


def test_without_redis_a_revocation_is_pending_and_cuts_all_the_same(pair, endless):
    _, key = fresh(pair)
    streams = open_streams(pair.urls, key)
    pair.signal_server("redis", signal.SIGSTOP)
    try:
        asked_at_s = time.monotonic()
        response = revoke(pair, key)
        assert response.publication == publication_pb2.PUBLICATION_PENDING
        assert_cut(streams, asked_at_s)
        assert 200 not in statuses(pair, key)
    finally:
        pair.signal_server("redis", signal.SIGCONT)
    endless.settings(tokens=24, record_delay_ms=0)
    seen = set()

    def refused_everywhere() -> bool:
        now = statuses(pair, key)
        seen.update(now)
        return now == {401}

    eventually(refused_everywhere, timeout_s=60, what="the refusal")
    assert 200 not in seen
    eventually(lambda: pair.redis.hgetall(keyspace.REPLICAS), what="workers that watch")
    wait_for_workers(pair)


class Rolling:
    """A client behind a balancer: each request on a connection of its own, to a replica that takes connections.

    That a replica takes none is no failure, as long as another one does; after that nothing is tried again.
    """

    def __init__(self, gateway: Gateway, api_key: str) -> None:
        self._urls = gateway.urls
        self._key = api_key
        self.answers: list[Answer] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    async def _run(self) -> None:
        number = 0
        while not self._stopping.is_set():
            number += 1
            turns = [self._urls[(number + offset) % len(self._urls)] for offset in range(len(self._urls))]
            for url in turns:
                if not is_ready(url):
                    continue
                client = Client(url, self._key)
                self.answers.append(await client.ask(chat(number)))
                client.close()
                break
            else:
                raise AssertionError("no replica takes connections")
            await asyncio.sleep(0.02)


@pytest.mark.slow
def test_a_rolling_restart_of_both_planes_fails_no_request(pair, watch_mock):
    watch_mock.reset()
    _, key = fresh(pair)
    assert statuses(pair, key) == {200}
    with Rolling(pair, key) as client:
        for role in ("controlplane", "dataplane"):
            for pid in children(pair, role):
                os.kill(pid, signal.SIGTERM)
                eventually(lambda gone=pid: not _runs(gone), timeout_s=60, what=f"the end of a {role}")  # type: ignore[misc]
                eventually(lambda kind=role: len(children(pair, kind)) == 2, timeout_s=60, what="its successor")  # type: ignore[misc]
                if role == "dataplane":
                    eventually(lambda: all(map(is_ready, pair.urls)), timeout_s=60, what="that all are ready")
                else:
                    eventually(lambda: all(map(_serves, pair.description["admin_addresses"])), timeout_s=60)
                seen = len(client.answers)
                eventually(lambda count=seen: len(client.answers) > count + 10, what="traffic")  # type: ignore[misc]
    assert {answer.status for answer in client.answers} == {200}
    wait_for_workers(pair)


def test_a_stream_beyond_the_drain_time_ends_with_an_error_event(pair, endless):
    _, key = fresh(pair)
    stream = OpenStream(pair.urls[0], key).start()
    asked_at_s = time.monotonic()
    worker = pair.worker(0)
    os.kill(psutil.Process(worker).ppid(), signal.SIGTERM)
    assert_cut([stream], asked_at_s, within_s=10)
    eventually(lambda: not _runs(worker), timeout_s=60, what="the end of the worker")
    eventually(lambda: is_ready(pair.urls[0]), timeout_s=60, what="its successor")
    wait_for_workers(pair)


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _serves(address: str) -> bool:
    with grpc.insecure_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=2)
        except grpc.FutureTimeoutError:
            return False
    return True


@pytest.mark.slow
def test_with_the_push_in_a_black_hole_the_next_request_is_refused_and_renewal_cuts(watch_mock, tmp_path):
    watch_mock.reset()
    watch_mock.settings(tokens=3000, record_delay_ms=20)
    port = free_port()
    with proxy_in_a_thread(port) as proxy:
        options = (
            f"--admin-port={port}",
            "--set=MODEL_DISCOVERY_CACHE_TTL_S=900",
            f"--set=GATEWAY_CONTROL_ADDRESSES=127.0.0.1:{proxy.port}",
        )
        with running(Gateway(tmp_path, [watch_mock], *options)) as gateway:
            _, key = fresh(gateway)
            wait_for_workers(gateway, 1)
            # A worker that has just got a snapshot asks about its leases at once; that must be over.
            watching_since_s = time.monotonic()
            eventually(lambda: time.monotonic() - watching_since_s >= 2.5)
            stream = OpenStream(gateway.url, key).start()
            proxy.swallow_requests = proxy.swallow_replies = True
            asked_at_s = time.monotonic()
            response = revoke(gateway, key)
            assert response.publication == publication_pb2.PUBLICATION_APPLIED
            assert status(gateway.url, key) == 401
            [took_s] = assert_cut([stream], asked_at_s, within_s=CUT_WITHOUT_PUSH_WITHIN_S)
            log.info("cut_without_push", after_s=took_s)
            proxy.swallow_requests = proxy.swallow_replies = False
            wait_for_workers(gateway, 1)
