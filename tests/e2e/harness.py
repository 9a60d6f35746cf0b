"""The whole gateway as processes, and the hands to use it: mock Ollamas, admin calls, ledger look-ups."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import SplitResult, urlsplit

import asyncpg
import grpc
import httpx
import psutil
import redis as redis_client

from deploy.local.ports import free_port, is_free
from neuronetz.admin.v1 import key_pb2, key_pb2_grpc, limits_pb2, tenant_pb2, tenant_pb2_grpc
from shared import keyspace
from tests.fakes import own_ports

START_TIMEOUT_S = 90.0
# How long an admission may take here: a machine that is busy for a moment is no outage of Redis.
ADMISSION_DEADLINE_S = 0.5


def eventually[T](look: Callable[[], T], *, timeout_s: float = 20.0, what: str = "the condition") -> T:
    """Looks again and again until the result is truthy; fails after the deadline."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        result = look()
        if result:
            return result
        if time.monotonic() > deadline_s:
            raise AssertionError(f"{what} did not come true within {timeout_s} s; last seen: {result!r}")
        time.sleep(0.02)


class Process:
    """A child process whose first line on stdout says where it is."""

    def __init__(self, *command: str, timeout_s: float = START_TIMEOUT_S) -> None:
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        timer = time.monotonic()
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.stdout.close()
            raise RuntimeError(f"{command[:4]} ended with {self._process.wait()} before it was ready")
        self.started_in_s = time.monotonic() - timer
        self.description: dict[str, Any] = json.loads(line)
        assert self.started_in_s < timeout_s

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> int:
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(timeout=90)
        if self._process.stdout is not None:
            self._process.stdout.close()
        return code


class MockOllama(Process):
    """One mock Ollama in a process of its own, scripted over its control endpoint."""

    def __init__(self, name: str, *options: str) -> None:
        super().__init__(
            sys.executable, "-m", "deploy.mock_ollama", "--host", "127.0.0.1", "--port", "0", "--name", name, *options
        )
        self.name = name
        self.url: str = self.description["url"]
        self._control = httpx.Client(base_url=self.description["control_url"], timeout=30, trust_env=False)
        self._collected: list[dict[str, Any]] = []
        self._collecting = threading.Lock()

    def script(self, *faults: dict[str, Any]) -> None:
        self._control.post("/script", json=list(faults)).raise_for_status()

    def unscript(self) -> None:
        """Forgets the faults that nobody has met yet."""
        self._control.request("DELETE", "/script").raise_for_status()

    def reset(self) -> None:
        self.unscript()
        self.forget()
        self.settings(tokens=24, tokens_per_record=1, record_delay_ms=0, load_delay_ms=0)

    def forget(self) -> None:
        """Forgets the requests until now."""
        with self._collecting:
            self._control.request("DELETE", "/requests").raise_for_status()
            self._collected.clear()

    def settings(self, **settings: Any) -> None:
        self._control.put("/settings", json=settings).raise_for_status()

    def requests(self, path: str | None = None) -> list[dict[str, Any]]:
        with self._collecting:
            requests = [*self._collected, *self._since()]
        inference = [request for request in requests if request["path"] not in ("/api/tags", "/api/show")]
        return inference if path is None else [request for request in requests if request["path"] == path]

    def collect(self) -> None:
        """Takes over the requests until now, as far as they have come: a mock itself remembers the last 10 000."""
        with self._collecting:
            # Of a body, what it says is enough; the rest would fill the memory.
            self._collected += [
                {name: one[name] for name in ("sequence", "path", "headers", "body_base64", "arrived_at_s")}
                for one in self._since()
            ]

    def _since(self) -> list[dict[str, Any]]:
        after = self._collected[-1]["sequence"] if self._collected else 0
        reply = self._control.request("GET", "/requests", json={"after": after})
        requests: list[dict[str, Any]] = reply.json()["requests"]
        return requests

    def stats(self) -> dict[str, Any]:
        stats: dict[str, Any] = self._control.get("/stats").json()
        return stats

    def stop(self) -> int:
        self._control.close()
        return super().stop()


def body_of(request: dict[str, Any]) -> Any:
    """The JSON that a mock received, as it stood on the wire."""
    return json.loads(base64.b64decode(request["body_base64"]))


def _free_ports(count: int, taken: Collection[int]) -> int:
    """The first of so many free ports in a row, none of them among those ``taken`` that nobody listens on yet.

    Data planes share a port when they find it free at the same moment, as another run on this machine may find the
    default one; at random that is unlikely.
    """
    while True:
        first = free_port()
        if all(port not in taken and is_free(port) for port in range(first, first + count)):
            return first


class Backend(Protocol):
    """What a gateway is told of a backend; a mock in the test's own process has it, too."""

    @property
    def name(self) -> str: ...

    @property
    def url(self) -> str: ...


class Gateway(Process):
    """A running ``neuronetz-gateway up --json``."""

    def __init__(self, state: Path, backends: Sequence[Backend], *options: str, replicas: int = 1) -> None:
        ports = own_ports.choose_for(state)
        named = [f"--backend={backend.name}={backend.url}" for backend in backends]
        super().__init__(
            str(Path(sys.executable).with_name("neuronetz-gateway")),
            "up", "--json", f"--state={state}", f"--replicas={replicas}", f"--port={_free_ports(replicas, ports)}",
            f"--set=REDIS_TIMEOUT_S={ADMISSION_DEADLINE_S}",
            "--set=MODEL_DISCOVERY_REFRESH_S=1", "--set=AUTH_FAILURE_RATE_LIMIT_PER_IP_PER_MIN=1000000",
            *named, *options,
        )  # fmt: skip
        self.urls: list[str] = self.description["gateway_urls"]
        # Servers of the stack that a test started again after it had stopped them.
        self.successors: list[subprocess.Popen[bytes]] = []
        self.first_key = ""
        self.url = self.urls[0]
        self.channel = grpc.insecure_channel(self.description["admin_address"])
        self._metadata = (("authorization", f"Bearer {self.description['admin_token']}"),)
        self._tenants = tenant_pb2_grpc.TenantServiceStub(self.channel)
        self._keys = key_pb2_grpc.KeyServiceStub(self.channel)
        self.redis = redis_client.Redis.from_url(self.description["redis_url"], decode_responses=True)
        self.state = Path(self.description["state_dir"])
        self._server_pids: dict[str, int] = {role: self.description["pids"][role][0] for role in ("redis", "postgres")}
        # Every key that was made here, and how far each file of the stack was searched for them.
        self.minted: list[str] = []
        self.looked_through: dict[Path, int] = {}
        # Who serves, until the test says that it ends or replaces it.
        self._serving = self.serving()

    def tenant(
        self, name: str, *, models: list[str] | None = None, prompt_log_days: int | None = None, **limits: int
    ) -> str:
        """Creates a tenant with generous limits; all models unless some are named, no prompt log unless it has days."""
        granted = (
            limits_pb2.Grants(allow_all_models=True)
            if models is None
            else limits_pb2.Grants(allowed_models=limits_pb2.ModelNames(names=models))
        )
        rules = {"rpm": 1_000_000, "tpm": 1_000_000_000, "concurrent": 1000, **limits}
        request = tenant_pb2.CreateTenantRequest(
            name=name,
            limits=limits_pb2.Limits(**rules),
            grants=granted,
            prompt_log=prompt_log_days is not None,
            prompt_log_retention_days=prompt_log_days,
        )
        created = self._tenants.CreateTenant(request, metadata=self._metadata, timeout=30)
        tenant_id: str = created.tenant.id
        return tenant_id

    def key(self, tenant: str, name: str = "test", **fields: Any) -> str:
        request = key_pb2.CreateKeyRequest(tenant=tenant, name=name, **fields)
        api_key: str = self._keys.CreateKey(request, metadata=self._metadata, timeout=30).api_key
        self.minted.append(api_key)
        return api_key

    def update_tenant(self, name: str, *, clear: tuple[str, ...] = (), **limits: int) -> None:
        """Changes some limits of a tenant; ``clear`` names those to unset."""
        request = tenant_pb2.UpdateTenantRequest(tenant=name, limits=limits_pb2.Limits(**limits), clear=clear)
        self._tenants.UpdateTenant(request, metadata=self._metadata, timeout=30)

    def update_key(self, api_key: str, *, clear: tuple[str, ...] = (), **limits: int) -> None:
        """Changes some limits of a key; ``clear`` names those to unset."""
        request = key_pb2.UpdateKeyRequest(prefix=api_key[:12], limits=limits_pb2.Limits(**limits), clear=clear)
        self._keys.UpdateKey(request, metadata=self._metadata, timeout=30)

    def limited_key(self, tenant: str, **limits: int) -> str:
        """A key with limits of its own."""
        return self.key(tenant, limits=limits_pb2.Limits(**limits))

    def revoke(self, api_key: str) -> None:
        request = key_pb2.RevokeKeyRequest(prefix=api_key[:12])
        self._keys.RevokeKey(request, metadata=self._metadata, timeout=30)

    def suspend_tenant(self, name: str) -> None:
        request = tenant_pb2.SuspendTenantRequest(tenant=name)
        self._tenants.SuspendTenant(request, metadata=self._metadata, timeout=30)

    def resume_tenant(self, name: str) -> None:
        request = tenant_pb2.ResumeTenantRequest(tenant=name)
        self._tenants.ResumeTenant(request, metadata=self._metadata, timeout=30)

    def rows(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        """What the ledger answers to a query. Not for use inside an event loop."""
        return asyncio.run(self._rows(query, *arguments))

    async def _rows(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.description["postgres_dsn"], ssl=False)
        try:
            rows: list[asyncpg.Record] = await connection.fetch(query, *arguments)
            return rows
        finally:
            await connection.close()

    def open_leases(self) -> int:
        """Leases that are held now, over all shards."""
        return sum(int(self.redis.zcard(keyspace.expiry(shard))) for shard in keyspace.SHARDS)

    def undrained(self) -> int:
        """Usage events that are not in Postgres yet."""
        return sum(int(self.redis.xlen(keyspace.usage(shard))) for shard in keyspace.SHARDS)

    def wait_for_models(self, api_key: str, *names: str) -> None:
        """Waits until discovery offers the models."""

        def offered() -> bool:
            reply = httpx.get(f"{self.url}/api/tags", headers=bearer(api_key), timeout=20, trust_env=False)
            return reply.status_code == 200 and set(names) <= {model["name"] for model in reply.json()["models"]}

        eventually(offered, timeout_s=30, what=f"models {names}")

    def start_again(self, script: str) -> None:
        """Starts Postgres or Redis from the script that the stack left for it (``redis.cmd``)."""
        command = ["/bin/sh", str(Path(self.description["state_dir"]) / script)]
        self.successors.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/"))
        self._server_pids[script.removesuffix(".cmd")] = self.successors[-1].pid

    def signal_server(self, role: str, number: signal.Signals) -> None:
        """Sends a signal to ``redis`` or ``postgres``; after one that ends it, waits for the end."""
        pid = self._server_pids[role]
        os.kill(pid, number)
        if number not in (signal.SIGSTOP, signal.SIGCONT):
            eventually(lambda: not self._is_running(pid), what=f"the end of {role}")

    def worker(self, number: int) -> int:
        """The process that serves now on the data plane with this number, from 0."""
        port = str(urlsplit(self.urls[number]).port)
        for child in psutil.Process(self.description["pids"]["up"][0]).children():
            with contextlib.suppress(psutil.Error):
                if child.environ().get("GATEWAY_BIND_PORT") == port:
                    below = child.children(recursive=True)
                    return next((one.pid for one in below if "tracker" not in " ".join(one.cmdline())), child.pid)
        raise AssertionError(f"no data plane listens on {port}")

    def serving(self) -> dict[str, int]:
        """The process that serves now for each plane; 0 while there is none."""
        found: dict[str, int] = {}
        for child in psutil.Process(self.pid).children():
            with contextlib.suppress(psutil.Error, ValueError):
                bind = child.environ().get("GATEWAY_ADMIN_BIND", "")
                number = self.description["admin_addresses"].index(bind)
                found[f"controlplane-{number + 1}"] = child.pid
        for number in range(len(self.urls)):
            with contextlib.suppress(AssertionError):
                found[f"dataplane-{number + 1}"] = self.worker(number)
        return found

    def deaf(self) -> list[str]:
        """The control planes that nobody can connect to, though their processes may be there."""
        return [
            f"controlplane-{number}"
            for number, address in enumerate(self.description["admin_addresses"], 1)
            if not _listens(urlsplit(f"//{address}"))
        ]

    def may_restart(self, plane: str = "") -> None:
        """From now on this plane, or every one, may be served by another process than before."""
        for name in [plane] if plane else list(self._serving):
            self._serving.pop(name, None)

    def restarted(self) -> list[str]:
        """The planes that were started again though nobody said that they might; what runs now is right afterwards."""
        now = self.serving()
        found = [name for name, pid in self._serving.items() if now.get(name) != pid]
        self._serving = now
        return found

    def server_pid(self, role: str) -> int:
        """The process of ``redis`` or ``postgres``."""
        return self._server_pids[role]

    def dataplane_environment(self) -> dict[str, str]:
        """The environment that the data planes were started with."""
        return dict(psutil.Process(self.description["pids"]["dataplane_main"][0]).environ())

    def _is_running(self, pid: int) -> bool:
        for successor in self.successors:
            successor.poll()
        return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE

    def stop(self) -> int:
        self.channel.close()
        self.redis.close()
        code = super().stop()
        for successor in self.successors:
            successor.terminate()
            successor.wait(timeout=60)
        return code


def _listens(address: SplitResult) -> bool:
    try:
        socket.create_connection((address.hostname or "", address.port or 0), timeout=2).close()
    except OSError:
        return False
    return True


def is_ready(url: str, *, timeout_s: float = 5.0) -> bool:
    """Whether a data plane says that it is ready.

    Without httpx, whose clients cost as much as a start has to spare when they are made again and again beside it.
    """
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=timeout_s)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def bearer(api_key: str) -> dict[str, str]:
    """The header that a client authenticates with."""
    return {"Authorization": f"Bearer {api_key}"}


@contextlib.contextmanager
def running[P: Process](process: P) -> Iterator[P]:
    """Stops the process at the end, whatever happens."""
    try:
        yield process
    finally:
        process.stop()
