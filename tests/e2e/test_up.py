"""`neuronetz-gateway up` with the real planes: what recovers by itself, and what ends with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import grpc
import httpx
import psutil
import pytest

from tests.canaries import PROMPT
from tests.e2e.harness import Gateway, MockOllama, bearer, eventually, running

MODEL = "llama3.2:latest"


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def chat(url: str, key: str) -> int:
    """Status of one chat; 0 when nobody answers."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}], "stream": False}
    try:
        return httpx.post(f"{url}/api/chat", json=body, headers=bearer(key), timeout=30, trust_env=False).status_code
    except httpx.TransportError:
        return 0


def serves(url: str, key: str) -> bool:
    return chat(url, key) == 200


@pytest.fixture(scope="module")
def backend() -> Iterator[MockOllama]:
    with running(MockOllama("only")) as mock:
        yield mock


@pytest.fixture
def stack(backend, tmp_path) -> Iterator[Gateway]:
    with running(Gateway(tmp_path / "state", [backend], "--control-replicas=2", replicas=2)) as gateway:
        yield gateway


@pytest.fixture
def stack_key(stack: Gateway) -> str:
    stack.tenant("acme")
    key = stack.key("acme")
    stack.wait_for_models(key, MODEL)
    return key


def test_every_replica_serves_and_has_ports_of_its_own(stack, stack_key):
    assert len(stack.urls) == len(stack.description["pids"]["dataplane"]) == 2
    assert len(stack.description["pids"]["controlplane"]) == 2
    for url in stack.urls:
        assert eventually(partial(serves, url, stack_key), what=f"a chat on {url}")
    for url in stack.description["metrics_urls"]:
        assert httpx.get(url, trust_env=False).status_code == 200


@pytest.mark.parametrize("role", ["dataplane", "dataplane_main"])
def test_a_killed_data_plane_is_back_on_its_port(stack, stack_key, role):
    os.kill(stack.description["pids"][role][0], signal.SIGKILL)
    eventually(lambda: is_gone(stack.description["pids"]["dataplane"][0]), what="the end of the worker")
    eventually(lambda: chat(stack.url, stack_key) == 200, timeout_s=30, what="a chat after the restart")


def test_requests_go_on_while_the_control_planes_are_killed_and_admin_calls_come_back(stack, stack_key):
    for pid in stack.description["pids"]["controlplane"]:
        os.kill(pid, signal.SIGKILL)
    assert chat(stack.url, stack_key) == 200

    def mints() -> bool:
        try:
            return chat(stack.url, stack.key("acme")) == 200
        except grpc.RpcError:
            return False

    eventually(mints, timeout_s=30, what="a key minted after the restart")


@pytest.mark.parametrize(("role", "number"), [("redis", signal.SIGKILL), ("postgres", signal.SIGINT)])
def test_a_server_that_somebody_stopped_and_started_again_is_picked_up(stack, stack_key, role, number):
    (pid,) = stack.description["pids"][role]
    os.kill(pid, number)
    eventually(lambda: is_gone(pid), what=f"the end of {role}")
    if role == "redis":
        assert chat(stack.url, stack_key) == 503
    else:
        assert chat(stack.url, stack_key) == 200
    successor = subprocess.Popen(
        [Path(stack.description["state_dir"]) / f"{role}.cmd"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        eventually(lambda: chat(stack.url, stack_key) == 200, timeout_s=30, what="a chat after the return")
        eventually(lambda: stack.undrained() == 0, timeout_s=30, what="a drained ledger")
        assert stack.rows("select count(*) from gateway.audit_log where status = 200")[0][0] >= 1
    finally:
        stack.stop()
        successor.send_signal(signal.SIGINT)
        successor.wait(20)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_a_killed_stack_leaves_no_process_and_starts_again(backend, tmp_path):
    state = tmp_path / "state"
    with running(Gateway(state, [backend])) as gateway:
        gateway.tenant("acme")
        key = gateway.key("acme")
        gateway.wait_for_models(key, MODEL)
        (up,) = gateway.description["pids"]["up"]
        os.kill(up, signal.SIGKILL)
        pids = [pid for role, several in gateway.description["pids"].items() if role != "up" for pid in several]
        eventually(lambda: all(map(is_gone, pids)), timeout_s=15, what="the end of the children")
    with running(Gateway(state, [backend])) as again:
        again.wait_for_models(key, MODEL)
        assert chat(again.url, key) == 200


def test_a_setting_that_a_plane_refuses_ends_with_64_and_the_reason(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "deploy.local", "up", "--state", tmp_path / "state", "--set", "DEFAULT_RPM=plenty"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 64
    assert "DEFAULT_RPM" in done.stderr


def test_a_gateway_without_eviction_policy_noeviction_is_not_ready(tmp_path, backend):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "deploy.local", "up", "--state", tmp_path / "state"),
            *("--redis-policy", "allkeys-lru", "--ready-timeout", "8", "--backend", f"only={backend.url}"),
        ],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 1
    assert "did not become ready" in done.stderr
