"""The command `up`, with stand-ins for the planes: what the stack does, whatever the planes are."""

import os
import signal
import socket
import stat
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from deploy.local.state import StateFolder
from deploy.local.waiting import wait_until
from tests.integration.local.foreground import Foreground, answer, is_gone

ALL_ROLES = ("up", "dataplane", "dataplane_main", "controlplane", "postgres", "redis")


@pytest.fixture
def start(tmp_path):
    running = []

    def make(*arguments: str, fault: str = "") -> Foreground:
        up = Foreground("up", tmp_path / "state", "--json", *arguments, fault=fault)
        running.append(up)
        return up

    yield make
    for up in running:
        up.end()


def answers(url: str) -> bool:
    try:
        return bool(answer(url))
    except OSError:
        return False


def everybody(described: dict[str, Any]) -> list[int]:
    return [pid for role in ALL_ROLES for pid in described["pids"][role]]


def test_the_description_names_every_replica_and_process(start):
    described = start("--replicas", "2", "--control-replicas", "2", "--backend", "a=http://127.0.0.1:1").ready()
    assert len(described["gateway_urls"]) == len(described["pids"]["dataplane"]) == 2
    assert len(described["metrics_urls"]) == 4
    for url, worker in zip(described["gateway_urls"], described["pids"]["dataplane"], strict=True):
        assert answer(url)["pid"] == worker
    host, port = described["admin_address"].rsplit(":", 1)
    with socket.create_connection((host, int(port)), 2):
        pass
    for role, names in {"postgres": "postgres", "redis": "valkey-server"}.items():
        (pid,) = described["pids"][role]
        assert names in psutil.Process(pid).cmdline()[0]
    for file in described["logs"].values():
        assert stat.S_IMODE(Path(file).stat().st_mode) == 0o600


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything_and_the_status_is_success(start, number):
    up = start()
    described = up.ready()
    status, output, errors = up.end(number)
    assert (status, output) == (0, ""), errors
    assert all(map(is_gone, everybody(described)))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_a_kill_leaves_nothing_behind(start):
    up = start()
    described = up.ready()
    os.kill(up.process.pid, signal.SIGKILL)
    wait_until(lambda: all(map(is_gone, everybody(described)[1:])), timeout_s=30, what="the end of the children")


def test_a_second_start_has_the_same_addresses_secrets_and_data(start):
    first = start()
    before = first.ready()
    first.end()
    after = start().ready()
    for unchanged in ("gateway_urls", "admin_address", "admin_token", "redis_url", "postgres_dsn"):
        assert after[unchanged] == before[unchanged]


def test_a_second_start_while_the_first_runs_says_so(start):
    up = start()
    described = up.ready()
    second = start()
    output, errors = second.process.communicate(timeout=30)
    assert (second.process.returncode, output) == (1, "")
    assert f"process {up.process.pid}" in errors
    assert described["gateway_urls"][0] in errors
    assert up.process.poll() is None


def test_a_plane_that_dies_comes_back_on_the_same_port(start):
    described = start().ready()
    (url,) = described["gateway_urls"]
    for role in ("dataplane", "dataplane_main", "controlplane"):
        worker = answer(url)["pid"]
        (pid,) = described["pids"][role] if role != "dataplane" else (worker,)
        os.kill(pid, signal.SIGKILL)
        wait_until(partial(is_gone, pid), timeout_s=30, what="the end")
        wait_until(lambda: answers(url), timeout_s=30, what=f"the restart after {role} died")
        if role == "dataplane":
            assert answer(url)["pid"] != worker
            (described["pids"]["dataplane_main"][0],) = [psutil.Process(answer(url)["pid"]).ppid()]
    host, port = described["admin_address"].rsplit(":", 1)

    def serves() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((host, int(port))) == 0

    wait_until(serves, timeout_s=30, what="the control plane")


def test_redis_is_left_to_whoever_stopped_it_and_its_successor_to_its_owner(start):
    up = start()
    described = up.ready()
    (redis,) = described["pids"]["redis"]
    os.kill(redis, signal.SIGKILL)
    wait_until(lambda: is_gone(redis), timeout_s=30, what="the end of Redis")
    port = int(described["redis_url"].rsplit(":", 1)[1].split("/")[0])
    successor = subprocess.Popen([Path(described["state_dir"]) / "redis.cmd"], stdout=subprocess.DEVNULL)
    try:

        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        wait_until(listens, timeout_s=30, what="Redis")
        assert up.process.poll() is None
        assert up.end()[0] == 0
        assert successor.poll() is None
    finally:
        successor.terminate()
        successor.wait(10)


def test_a_refused_configuration_stops_the_stack_and_shows_why(start):
    up = start(fault="configuration")
    _, errors = up.process.communicate(timeout=30)
    assert up.process.returncode == 64
    assert "FAKE_FAULT is set" in errors


def test_a_plane_that_fails_to_start_stops_the_stack_and_shows_its_log(start):
    up = start(fault="crash")
    _, errors = up.process.communicate(timeout=30)
    assert up.process.returncode == 1
    assert "crashed on purpose" in errors


def test_a_port_that_was_asked_for_and_is_taken_is_an_error(start):
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        up = start("--port", str(taken))
        _, errors = up.process.communicate(timeout=30)
    assert up.process.returncode == 1
    assert f"port {taken}" in errors


def test_redis_gets_the_memory_and_policy_of_the_command_line(start):
    described = start("--redis-maxmemory", "64mb", "--redis-policy", "allkeys-lru").ready()
    configuration = (Path(described["state_dir"]) / "redis.conf").read_text()
    assert "maxmemory 64mb\n" in configuration
    assert "maxmemory-policy allkeys-lru\n" in configuration


def test_settings_reach_both_planes(start):
    described = start("--set", "GATEWAY_LOG_LEVEL=DEBUG", "--set", "MAX_NUM_PREDICT=7").ready()
    data = answer(described["gateway_urls"][0])["environment"]
    control = psutil.Process(described["pids"]["controlplane"][0]).environ()
    for environment in (data, control):
        assert (environment["GATEWAY_LOG_LEVEL"], environment["MAX_NUM_PREDICT"]) == ("DEBUG", "7")


def test_the_lock_is_free_after_a_stop(start, tmp_path):
    up = start()
    up.ready()
    up.end()
    with StateFolder(tmp_path / "state") as folder:
        assert folder.is_state
