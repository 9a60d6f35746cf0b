"""A whole fleet with a fault proxy on every link: data planes, control planes, Postgres, Redis and two mock Ollamas.

    with fleet(tmp_path, data_planes=2) as whole:
        whole.link("dataplane-1", "redis").hold_replies = True
        whole.signal("controlplane-2", signal.SIGSTOP)

Each server has one proxy, and every connection through it is told apart by the process that opened it: so each plane
has a link of its own to each server that it talks to, also after it was started again.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from deploy.local.ports import PortBook, free_port, is_free
from deploy.local.postgres import Postgres
from deploy.local.redis import Redis
from deploy.local.state import Secrets
from tests.e2e.harness import START_TIMEOUT_S, Gateway, MockOllama, eventually, is_ready, running
from tests.fakes.tcp_proxy import Link, TCPProxy, proxies_in_a_thread
from tests.faults.owners import Owners

MOCKS = ("first", "second")
DATA, CONTROL = "dataplane", "controlplane"
_BINDS = frozenset({"GATEWAY_BIND_PORT", "GATEWAY_ADMIN_BIND"})
_QUICK = (
    "--ready-timeout=85",
    "--set=ARGON2_TIME_COST=1",
    "--set=ARGON2_MEMORY_COST_KIB=8192",
    "--set=MODEL_DISCOVERY_CACHE_TTL_S=900",
)


@dataclass(frozen=True, slots=True)
class Backend:
    """A mock as the planes see it: behind its proxy."""

    name: str
    url: str


class Fleet:
    """The processes, the links between them, and the mocks; made by ``fleet``."""

    def __init__(
        self,
        gateway: Gateway,
        mocks: Sequence[MockOllama],
        links: dict[tuple[str, str], Link],
        proxies: dict[str, TCPProxy],
        owners: Owners,
    ) -> None:
        self.gateway = gateway
        self.mocks = list(mocks)
        self.links = links
        # What stands before each server, for who puts another server in its place.
        self.proxies = proxies
        self._owners = owners

    @property
    def planes(self) -> list[str]:
        """The names of all planes."""
        return list(dict.fromkeys(plane for plane, _ in self.links))

    def link(self, plane: str, server: str) -> Link:
        """The way from a plane to ``redis``, ``postgres``, a mock or a control plane."""
        return self.links[plane, server]

    def links_to(self, server: str, kind: str = "") -> list[Link]:
        """The ways of all planes of a kind to a server."""
        return [link for (plane, target), link in self.links.items() if target == server and plane.startswith(kind)]

    def pids(self, name: str) -> list[int]:
        """The processes of a plane or a server, the first one first; or that of a mock."""
        for mock in self.mocks:
            if mock.name == name:
                return [mock.pid]
        if name in self.planes:
            return self._owners.pids(name)
        pid = self.gateway.server_pid(name)
        try:
            return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
        except psutil.NoSuchProcess:
            return []

    def signal(self, name: str, number: signal.Signals) -> None:
        """Sends a signal to a plane (all its processes, or for SIGTERM the first), a mock or a server."""
        if name in ("redis", "postgres") and number not in (signal.SIGSTOP, signal.SIGCONT):
            self.gateway.signal_server(name, number)
            return
        if number in (signal.SIGTERM, signal.SIGKILL):
            self.gateway.may_restart(name)
        pids = self.pids(name)
        for pid in pids[:1] if number is signal.SIGTERM else pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def restore(self) -> None:
        """Everything is whole, the mocks have forgotten everything, and every data plane serves."""
        self.heal()
        for mock in self.mocks:
            mock.reset()
            mock.settings(echoes=True)
        eventually(self.is_ready, timeout_s=START_TIMEOUT_S, what="a fleet that is ready")
        # Who serves now is right.
        self.gateway.may_restart()
        self.gateway.restarted()

    def is_ready(self) -> bool:
        """Whether all planes run, control planes listen and every data plane says that it is ready."""
        is_whole = len(self.gateway.serving()) == len(self.planes) and not self.gateway.deaf()
        return is_whole and all(map(is_ready, self.gateway.urls))

    def heal(self) -> None:
        """All links carry again, and every process goes on."""
        for link in self.links.values():
            link.heal()
        for name in (*self.planes, *MOCKS, "redis", "postgres"):
            for pid in self.pids(name):
                with contextlib.suppress(psutil.Error):
                    if psutil.Process(pid).status() == psutil.STATUS_STOPPED:
                        os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def fleet(state: Path, *options: str, data_planes: int = 2, control_planes: int = 2) -> Iterator[Fleet]:
    """A running fleet; ``options`` go to ``neuronetz-gateway up``."""
    folder = state / "fleet"
    folder.mkdir(mode=0o700)
    # The stack takes over the ports and secrets that its folder has: so they are known before it starts.
    book, secrets = PortBook(folder / "ports.json"), Secrets(folder / "secrets.json")
    control = {f"{CONTROL}-{number + 1}": book.assign(f"{CONTROL}-{number + 1}") for number in range(control_planes)}
    first = _ports_in_a_row(data_planes)
    data = {f"{DATA}-{number + 1}": first + number for number in range(data_planes)}
    owners = Owners({**data, **control}, _BINDS)
    with contextlib.ExitStack() as stack:
        mocks = [stack.enter_context(running(MockOllama(name))) for name in MOCKS]
        for mock in mocks:
            mock.settings(echoes=True)
        servers = {"redis": book.assign("redis"), "postgres": book.assign("postgres"), **control}
        servers |= {mock.name: urlsplit(mock.url).port or 0 for mock in mocks}
        links = {(plane, name): Link() for plane in data for name in ("redis", *control, *MOCKS)}
        links |= {(plane, name): Link() for plane in control for name in ("redis", "postgres", *MOCKS)}
        proxies = {
            name: TCPProxy("127.0.0.1", port, link_of=_chooser(owners, links, name)) for name, port in servers.items()
        }
        stack.enter_context(proxies_in_a_thread(list(proxies.values())))
        watched = ",".join(f"127.0.0.1:{proxies[name].port}" for name in control)
        settings = (
            f"--set=REDIS_URL={Redis(folder, port=proxies['redis'].port, secrets=secrets).url}",
            f"--set=DATABASE_URL={Postgres(folder, port=proxies['postgres'].port, secrets=secrets).owner_dsn}",
            f"--set=GATEWAY_CONTROL_ADDRESSES={watched}",
            f"--control-replicas={control_planes}",
            f"--port={first}",
        )
        backends = [Backend(mock.name, f"http://127.0.0.1:{proxies[mock.name].port}") for mock in mocks]
        gateway = Gateway(folder, backends, *_QUICK, *settings, *options, replicas=data_planes)
        whole = Fleet(stack.enter_context(running(gateway)), mocks, links, proxies, owners)
        stack.callback(whole.heal)
        yield whole


def _chooser(owners: Owners, links: dict[tuple[str, str], Link], server: str) -> Callable[[int, int], Link]:
    # A process that is gone before anybody could look has no link.
    return lambda port, own_port: links.get((owners.owner(port, own_port) or "", server)) or Link()


def _ports_in_a_row(count: int) -> int:
    while True:
        first = free_port()
        if all(is_free(first + offset) for offset in range(count)):
            return first
