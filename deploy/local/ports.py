"""Ports on loopback: find free ones, and remember which name had which, so that addresses survive a restart."""

import json
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

from deploy.local.errors import StackError
from deploy.local.processes import write_private

HOST = "127.0.0.1"
# Below the range from which kernels take the source ports of outgoing connections: so a port stays free while its
# server is down.
POOL = range(20_000, 30_000)


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback address now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A free port, chosen at random so that stacks starting at the same time rarely meet."""
    for port in secrets.SystemRandom().sample(POOL, len(POOL)):
        if is_free(port):
            return port
    raise StackError(f"no free port from {POOL.start} to {POOL.stop - 1}")


class PortBook:
    """Which name has which port, kept in a file of the state folder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ports: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
        self._given: set[int] = set()

    def __repr__(self) -> str:
        return f"PortBook({self._path}, {self._ports})"

    def assign(self, name: str, *, preferred: int | None = None, required: int | None = None) -> int:
        """The port for `name`: `required`, else `preferred` if free, else the one it had before if free, else any.

        Raises StackError when the required one is taken.
        """
        if required is not None:
            if required in self._given or not is_free(required):
                raise StackError(f"port {required} for {name} is taken")
            return self._give(name, required)
        return self._give(name, next(port for port in self._candidates(name, preferred) if port not in self._given))

    def known(self, name: str) -> int | None:
        """The port that `name` had last."""
        return self._ports.get(name)

    def _candidates(self, name: str, preferred: int | None) -> Iterator[int]:
        for port in (preferred, self._ports.get(name)):
            if port is not None and is_free(port):
                yield port
        while True:
            yield free_port()

    def _give(self, name: str, port: int) -> int:
        self._given.add(port)
        if self._ports.get(name) != port:
            self._ports[name] = port
            write_private(self._path, json.dumps(self._ports, indent=1))
        return port
