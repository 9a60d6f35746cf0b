"""What is measured side by side, each in front of the same mock: the mock itself, nginx, ours, and LiteLLM's proxy.

A ``Target`` has an address, what to send with a request, and its processes by role. Servers under test run on one core
(``SERVER_CORES``), everything else on the others: the load, the mock, Redis, and with less right to the core (nice 10)
the control plane and Postgres, which write the audit while the data plane is measured.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from deploy.local.ports import free_port, is_free
from neuronetz.admin.v1 import limits_pb2
from tests.bench import fast_replies, processes
from tests.e2e.harness import Gateway, Process, running

DATA_PLANE, CONTROL_PLANE, REDIS, POSTGRES = "data plane", "control plane", "Redis", "Postgres"
DIRECT, NGINX, OURS, OURS_TWO, LITELLM = "direct", "nginx", "ours", "ours, 2 workers", "LiteLLM"
START_TIMEOUT_S = 120.0
_BACKGROUND = 10
# Every limit is in force, none is met.
CONCURRENT = 1000
_MANY = 10**9
LIMITS = {
    "rpm": 1_000_000,
    "tpm": _MANY,
    "concurrent": CONCURRENT,
    "budget_day": 10**12,
    "budget_month": 10**12,
    "budget_total": 10**12,
}

_NGINX = """
worker_processes {workers};
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream mock {{
        server {upstream};
        keepalive 512;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096 reuseport;
        location / {{
            proxy_pass http://mock;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
}}
"""


class UnavailableError(Exception):
    """A target that this machine does not have."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One server under test. ``subject`` names the role whose cost counts as the target's own."""

    name: str
    url: str
    api_key: str | None = None
    subject: str = ""
    pids: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict)
    gateway: Gateway | None = None
    version: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cores:
    """Which cores what is measured may use, and everything else."""

    servers: tuple[int, ...]
    others: tuple[int, ...]

    @classmethod
    def of_this_machine(cls) -> Cores:
        """The first core for the servers; a machine with a single one shares it."""
        first, *rest = processes.cores()
        return cls(servers=(first,), others=tuple(rest) or (first,))

    @classmethod
    def shared(cls) -> Cores:
        """All of them for everybody."""
        return cls(servers=tuple(processes.cores()), others=tuple(processes.cores()))


class FastOllama(Process):
    """The mock as a process of its own, and as the backend that a gateway is told of."""

    name = "fast"

    def __init__(self, cores: Cores, *, extra_models: int = 0) -> None:
        super().__init__(sys.executable, "-m", "tests.bench.fast_ollama", f"--models={extra_models}")
        self.url: str = self.description["url"]
        processes.pin([self.pid], cores.others)


@contextlib.contextmanager
def direct(mock: FastOllama) -> Iterator[Target]:
    """The mock, without anything in between."""
    yield Target(name=DIRECT, url=mock.url, subject="mock", pids={"mock": [mock.pid]})


@contextlib.contextmanager
def nginx(mock: FastOllama, cores: Cores, *, workers: int = 1) -> Iterator[Target]:
    """``proxy_pass`` with kept connections, without a log. Raises ``UnavailableError`` where there is no nginx."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        raise UnavailableError("nginx is not installed")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        configuration = Path(folder, "nginx.conf")
        upstream = urlsplit(mock.url).netloc
        configuration.write_text(_NGINX.format(workers=workers, folder=folder, upstream=upstream, port=port))
        child = subprocess.Popen([program, "-c", str(configuration), "-e", f"{folder}/error.log"])
        try:
            _wait_for(port, child)
            family = processes.family(child.pid)
            processes.pin(family, cores.servers)
            url = f"http://127.0.0.1:{port}"
            yield Target(name=NGINX, url=url, subject=NGINX, pids={NGINX: family})
        finally:
            child.terminate()
            child.wait(timeout=20)


@contextlib.contextmanager
def ours(
    mock: FastOllama, cores: Cores, *, workers: int = 1, name: str = OURS, options: Sequence[str] = ()
) -> Iterator[Target]:
    """The gateway with every control on: limits and budgets of tenant and key, audit, metrics.

    Left out is the request log, as nginx's is; deadlines of Redis are longer, since it shares a core here.
    """
    with tempfile.TemporaryDirectory() as folder:
        told = (
            f"--set=GATEWAY_WORKERS={workers}",
            "--set=GATEWAY_LOG_LEVEL=warning",
            "--set=OLLAMA_MAX_CONNECTIONS=1024",
            "--set=REDIS_TIMEOUT_S=5",
            "--set=MODEL_DISCOVERY_REFRESH_S=30",
            "--redis-maxmemory=2gb",
        )
        with running(Gateway(Path(folder), [mock], *told, *options)) as gateway:
            gateway.tenant("bench")
            gateway.update_tenant("bench", clear=(), **LIMITS)
            api_key = gateway.key("bench", limits=limits_pb2.Limits(**LIMITS))
            gateway.wait_for_models(api_key, *(f"{model}:latest" for model in fast_replies.MODELS))
            yield Target(
                name=name,
                url=gateway.url,
                api_key=api_key,
                subject=DATA_PLANE,
                pids=_placed(gateway, cores),
                gateway=gateway,
            )


def _placed(gateway: Gateway, cores: Cores) -> dict[str, list[int]]:
    """The gateway's processes by role, each put where it belongs."""
    pids = gateway.description["pids"]
    niceness = 0 if set(cores.servers) == set(cores.others) else _BACKGROUND
    processes.pin([*pids["up"], *pids["dataplane_main"]], cores.others, niceness=niceness)
    placed = {
        DATA_PLANE: list(pids["dataplane"]),
        REDIS: list(pids["redis"]),
        CONTROL_PLANE: list(pids["controlplane"]),
    }
    placed[POSTGRES] = processes.family(pids["postgres"][0])
    processes.pin(placed[DATA_PLANE], cores.servers)
    processes.pin(placed[REDIS], cores.others)
    processes.pin([*placed[CONTROL_PLANE], *placed[POSTGRES]], cores.others, niceness=niceness)
    return placed


def _wait_for(port: int, child: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while is_free(port):
        if child.poll() is not None or time.monotonic() > deadline_s:
            raise UnavailableError(f"{child.args!r} does not listen; it ended with {child.poll()}")
        time.sleep(0.02)
