"""The stage of a rehearsal: `neuronetz-gateway up` with two replicas of each plane and two mock Ollamas.

What a shell on it finds in its environment is the table "Names on this page" of `docs/OPERATIONS.md`.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess  # nosec B404 - processes are what a rehearsal breaks
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from deploy.local.binaries import postgres_bin
from deploy.local.ports import free_port, is_free
from deploy.local.postgres import CONTROL
from deploy.local.redis import CONTROLPLANE, DATAPLANE, OPERATOR
from deploy.rehearsal.errors import RehearsalError

STOP_TIMEOUT_S = 60.0
BACKENDS = ("gpu1", "gpu2")
# Short enough to be waited for; the pages say the defaults.
SETTINGS = ("MODEL_DISCOVERY_REFRESH_S=1", "GATEWAY_DRAIN_TIMEOUT_S=5", "OLLAMA_CONNECT_TIMEOUT_S=1")


@contextlib.contextmanager
def stage(*, settings: Sequence[str]) -> Iterator[dict[str, str]]:
    """A gateway of its own, and what a shell is told of it; everything has ended afterwards.

    Raises RehearsalError when something does not start.
    """
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as place, contextlib.ExitStack() as ends:
        mocks = {name: ends.enter_context(_running(_mock(name), STOP_TIMEOUT_S)) for name in BACKENDS}
        folder = Path(place) / "state"
        command = [_program(), "up", "--json", f"--state={folder}", "--replicas=2", "--control-replicas=2"]
        command.append(f"--port={_free_ports(2)}")
        command += [f"--backend={name}={mock['url']}" for name, mock in mocks.items()]
        command += [f"--set={setting}" for setting in (*SETTINGS, *settings)]
        described = ends.enter_context(_running(command, STOP_TIMEOUT_S))
        yield _environment(described, mocks)


def _program() -> str:
    return str(Path(sys.executable).with_name("neuronetz-gateway"))


def _free_ports(count: int) -> int:
    """The first of so many free ports in a row: the preferred ones may be another gateway's of this machine."""
    while True:
        first = free_port()
        if all(is_free(first + offset) for offset in range(count)):
            return first


def _mock(name: str, port: str = "0") -> list[str]:
    return [sys.executable, "-m", "deploy.mock_ollama", "--host", "127.0.0.1", "--port", port, "--name", name]


@contextlib.contextmanager
def _running(command: Sequence[str], timeout_s: float) -> Iterator[dict[str, Any]]:
    """A program that says in its first line where it is; its process id is added as ``pid``."""
    said, says = os.pipe()
    process = subprocess.Popen(list(command), stdout=says, stderr=subprocess.DEVNULL)  # nosec B603 - our own programs
    os.close(says)
    try:
        with os.fdopen(said) as output:
            line = output.readline()
        if not line:
            raise RehearsalError(f"{command[:4]} did not start")
        yield {**json.loads(line), "pid": process.pid}
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=timeout_s)
        process.kill()
        process.wait()


def _environment(described: Mapping[str, Any], mocks: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    state, pids = Path(described["state_dir"]), described["pids"]
    metrics, admin = described["metrics_urls"], described["admin_addresses"]
    secrets = json.loads((state / "secrets.json").read_text())
    return {
        "PATH": f"{Path(sys.executable).parent}:{postgres_bin()}:{os.environ['PATH']}",
        "HOME": str(state),
        "TERM": "dumb",
        "NO_COLOR": "1",
        "COLUMNS": "132",
        "LANG": "C.UTF-8",
        "state": str(state),
        "gateway": described["gateway_urls"][0],
        "gateway2": described["gateway_urls"][1],
        "dataplane": metrics[0],
        "dataplane2": metrics[1],
        "controlplane": metrics[2],
        "controlplane2": metrics[3],
        "redis_pid": str(pids["redis"][0]),
        "postgres_pid": str(pids["postgres"][0]),
        "worker_pid": str(pids["dataplane"][0]),
        "dataplane_pid": str(pids["dataplane_main"][0]),
        "dataplane2_pid": str(pids["dataplane_main"][1]),
        "controlplane_pids": " ".join(map(str, pids["controlplane"])),
        **{f"{name}_pid": str(mock["pid"]) for name, mock in mocks.items()},
        **{f"{name}_url": mock["url"] for name, mock in mocks.items()},
        **{f"{name}_control": mock["control_url"] for name, mock in mocks.items()},
        **{f"{name}_start": " ".join(_mock(name, mock["url"].rpartition(":")[2])) for name, mock in mocks.items()},
        "GATEWAY_ADMIN_ADDRESS": admin[0],
        "GATEWAY_ADMIN_TOKEN": described["admin_token"],
        # redis-cli takes an empty name for a name.
        "redis_admin": described["redis_url"].replace("://:", "://default:"),
        "redis": described["redis_urls"][OPERATOR],
        "redis_dataplane": described["redis_urls"][DATAPLANE],
        "REDIS_URL": described["redis_urls"][CONTROLPLANE],
        "DATABASE_URL": described["postgres_dsns"][CONTROL],
        "GATEWAY_KEY_PEPPER": secrets["key_pepper"],
        "GATEWAY_SEALING_KEY": secrets["sealing_key"],
        "GATEWAY_DATAPLANE_TOKEN": secrets["dataplane_token"],
        "OLLAMA_BACKENDS": json.dumps([{"name": name, "url": mock["url"]} for name, mock in mocks.items()]),
        "postgres": described["postgres_dsn"],
        **{f"port{number}": str(free_port()) for number in range(1, 5)},
    }
