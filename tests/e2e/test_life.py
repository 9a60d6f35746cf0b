"""The gateway over time: keys end, models come, processes die and return. On a gateway of its own, two replicas."""

from __future__ import annotations

import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg
import grpc
import httpx
import psutil
import pytest

from tests.canaries import PROMPT
from tests.e2e.harness import Gateway, MockOllama, bearer, eventually, running

CHAT = {"model": "llama3.2", "messages": [{"role": "user", "content": PROMPT}], "stream": False}
# Whoever waited for Redis, and not for the deadline of an admission, would be told when the client's patience is over.
REFUSED_WITHIN_S = 5.0


@pytest.fixture(scope="module")
def own_mock():
    with running(MockOllama("own")) as mock:
        yield mock


@pytest.fixture(scope="module")
def own(own_mock, tmp_path_factory):
    options = ("--control-replicas=2", "--set=MODEL_DISCOVERY_CACHE_TTL_S=900")
    with running(Gateway(tmp_path_factory.mktemp("life"), [own_mock], *options, replicas=2)) as gateway:
        gateway.tenant("life")
        gateway.first_key = gateway.key("life")
        serves_again(gateway, gateway.first_key)
        yield gateway


def chat(url: str, key: str, **changes) -> httpx.Response:
    return httpx.post(f"{url}/api/chat", json={**CHAT, **changes}, headers=bearer(key), timeout=30, trust_env=False)


def statuses(gateway: Gateway, key: str) -> set[int]:
    return {chat(url, key).status_code for url in gateway.urls}


def serves_again(gateway: Gateway, key: str, *, timeout_s: float = 20.0) -> None:
    def served() -> bool:
        try:
            return statuses(gateway, key) == {200}
        except httpx.HTTPError:
            return False

    eventually(served, timeout_s=timeout_s, what="that every replica serves again")


def pid_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_a_revoked_key_is_refused_on_the_next_request_of_every_replica(own):
    for _ in range(20):
        key = own.key("life")
        assert statuses(own, key) == {200}
        own.revoke(key)
        assert statuses(own, key) == {401}


def test_a_suspended_tenant_is_refused_and_a_resumed_one_served(own):
    own.tenant("pausing")
    key = own.key("pausing")
    assert statuses(own, key) == {200}
    own.suspend_tenant("pausing")
    assert statuses(own, key) == {401}
    own.resume_tenant("pausing")
    assert statuses(own, key) == {200}


def test_an_expired_key_is_refused(own):
    from google.protobuf.timestamp_pb2 import Timestamp

    # Long enough for a busy machine to mint it and to ask twice.
    key = own.key("life", expires_at=Timestamp(seconds=int(time.time()) + 6))
    assert statuses(own, key) == {200}
    eventually(lambda: statuses(own, key) == {401}, timeout_s=15, what="the expiry")


def test_a_pulled_model_becomes_usable_and_a_deleted_one_does_not_stay(own, own_mock):
    key = own.key("life")
    assert chat(own.url, key, model="fresh:1b").status_code == 403
    own_mock._control.put("/models", json=["llama3.2:latest", "fresh:1b"]).raise_for_status()
    eventually(lambda: chat(own.url, key, model="fresh:1b").status_code == 200, timeout_s=15, what="the new model")
    own_mock._control.put("/models", json=["llama3.2:latest"]).raise_for_status()
    eventually(lambda: chat(own.url, key, model="fresh:1b").status_code == 403, timeout_s=15, what="the end of it")


def test_concurrency_holds_over_replicas(own, own_mock):
    own.tenant("few", concurrent=3)
    key = own.key("few")
    own_mock.reset()
    own_mock.settings(record_delay_ms=15)
    with ThreadPoolExecutor(24) as pool:
        replies = list(pool.map(lambda number: chat(own.urls[number % 2], key).status_code, range(48)))
    assert set(replies) == {200, 429}
    assert own_mock.stats()["max_in_flight"] <= 3
    own_mock.reset()
    eventually(lambda: own.open_leases() == 0, timeout_s=15, what="that all slots are free")


@pytest.mark.skipif(sys.platform != "linux", reason="scheduling policies per thread are Linux'")
def test_what_the_loop_wakes_does_not_take_its_core_but_what_it_waits_for_does(own):
    worker = own.worker(0)

    def policies() -> dict[int, int]:
        return {
            int(task.name): os.sched_getscheduler(int(task.name)) for task in Path(f"/proc/{worker}/task").iterdir()
        }

    # The loop has the process' first thread; the server has one for sockets and one that enters Python.
    eventually(lambda: policies()[worker] == os.SCHED_OTHER, what="that the loop is scheduled as usual")
    chat(own.urls[0], own.first_key)
    assert list(policies().values()).count(os.SCHED_BATCH) >= 2


def test_a_killed_worker_is_replaced(own):
    victim = own.description["pids"]["dataplane"][0]
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: not pid_alive(victim), timeout_s=15)
    serves_again(own, own.first_key)
    assert victim not in (own.worker(0), own.worker(1))


def test_control_planes_may_die_and_requests_go_on(own):
    for pid in own.description["pids"]["controlplane"]:
        os.kill(pid, signal.SIGKILL)
        assert statuses(own, own.first_key) == {200}

    def admin_answers() -> bool:
        try:
            return bool(own.key("life"))
        except grpc.RpcError:
            return False

    eventually(admin_answers, timeout_s=30, what="the admin API")


def test_without_redis_everything_is_refused_and_afterwards_served(own, own_mock):
    pid = own.description["pids"]["redis"][0]
    own_mock.reset()
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not pid_alive(pid), timeout_s=15)
    for _ in range(10):
        for url in own.urls:
            started_s = time.monotonic()
            reply = chat(url, own.first_key)
            assert reply.status_code == 503
            assert int(reply.headers["retry-after"]) >= 1
            assert time.monotonic() - started_s < REFUSED_WITHIN_S
    for url in own.urls:
        assert httpx.get(f"{url}/healthz", trust_env=False).status_code == 200
        ready = httpx.get(f"{url}/readyz", trust_env=False)
        assert ready.status_code == 503
        assert httpx.get(f"{url}/api/tags", headers=bearer(own.first_key), trust_env=False).status_code == 503
    assert own_mock.requests() == []
    own.start_again("redis.cmd")
    serves_again(own, own.first_key)
    eventually(
        lambda: {httpx.get(f"{url}/readyz", trust_env=False).status_code for url in own.urls} == {200},
        what="that every replica is ready",
    )
    # Emptied: nothing is known until the control plane has rebuilt it; the digest comes back by Argon2.
    own.redis.flushall()
    serves_again(own, own.first_key)


def test_postgres_away_costs_no_request_and_no_audit_row(own):
    own.tenant("steady")
    key = own.key("steady")
    pid = own.description["pids"]["postgres"][0]
    os.kill(pid, signal.SIGQUIT)
    eventually(lambda: not pid_alive(pid), timeout_s=15)
    for number in range(20):
        assert chat(own.urls[number % 2], key).status_code == 200
    own.start_again("postgres.cmd")
    query = (
        "SELECT count(*) AS rows FROM gateway.audit_log a JOIN gateway.tenants t ON t.id = a.tenant_id "
        "WHERE t.name = 'steady' AND a.endpoint = '/api/chat'"
    )

    def rows() -> int:
        try:
            return int(own.rows(query)[0]["rows"])
        except (OSError, asyncpg.PostgresError):
            return 0

    eventually(lambda: rows() >= 20, timeout_s=30, what="the audit rows")
    assert rows() == 20


def test_a_stream_in_flight_survives_a_graceful_stop_of_its_replica(own, own_mock):
    own_mock.reset()
    own_mock.settings(tokens=40, record_delay_ms=25)
    pid = own.description["pids"]["dataplane_main"][1]
    lines = []
    with httpx.stream(
        "POST", f"{own.urls[1]}/api/chat", json={**CHAT, "stream": True}, headers=bearer(own.first_key), timeout=20,
        trust_env=False,
    ) as reply:  # fmt: skip
        stream = reply.iter_lines()
        lines.append(next(stream))
        os.kill(pid, signal.SIGTERM)
        lines.extend(stream)
    assert '"done":true' in lines[-1]
    own_mock.reset()
    serves_again(own, own.first_key, timeout_s=60)


def test_logs_are_json_lines_and_hold_no_secret(own):
    import json

    secrets = {own.first_key, own.first_key[12:], own.description["admin_token"]}
    for role, entry in own.description["logs"].items():
        for name in entry if isinstance(entry, list) else [entry]:
            text = Path(name).read_text()
            assert not [secret for secret in secrets if secret in text], role
            if role.startswith(("dataplane", "controlplane")):
                for line in text.splitlines():
                    json.loads(line)
