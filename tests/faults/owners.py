"""Which process is behind a connection: the planes of a gateway, found by what their environment tells them to bind."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Mapping
from pathlib import Path

import psutil

_LOCAL, _REMOTE, _INODE = 1, 2, 9


class Owners:
    """The processes of each plane, by name. Usable from any thread.

    ``ports`` says where each plane listens, ``variables`` which variables of the environment say so.
    """

    def __init__(self, ports: Mapping[str, int], variables: frozenset[str]) -> None:
        self._names = {str(port): name for name, port in ports.items()}
        self._variables = variables
        self._known: dict[int, str] = {}
        self._lock = threading.Lock()

    def pids(self, name: str) -> list[int]:
        """The processes of a plane that run now, parents first."""
        with self._lock:
            self._look()
            return sorted(pid for pid, plane in self._known.items() if plane == name)

    def owner(self, port: int, server_port: int) -> str | None:
        """The plane that has the connection between these ports of this machine; nothing when none has it."""
        inode = _inode(port, server_port)
        if inode is None:
            return None
        with self._lock:
            for pid, name in self._known.items():
                if _has(pid, inode):
                    return name
            self._look()
            return next((name for pid, name in self._known.items() if _has(pid, inode)), None)

    def _look(self) -> None:
        found = {}
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                # Between fork and exec, and at its end, a process has none.
                environment = process.environ()
                if process.status() == psutil.STATUS_ZOMBIE or "tracker" in " ".join(process.cmdline()):
                    continue
                values = (environment.get(variable, "").rpartition(":")[2] for variable in self._variables)
                for name in (self._names[value] for value in values if value in self._names):
                    found[process.pid] = name
        self._known = found


def _inode(port: int, server_port: int) -> str | None:
    wanted = f":{port:04X}", f":{server_port:04X}"
    # gRPC connects from sockets of IPv6, also to addresses of IPv4.
    tables = (Path("/proc/net") / name for name in ("tcp", "tcp6"))
    for line in (line for table in tables for line in table.read_text().splitlines()[1:]):
        fields = line.split()
        if (fields[_LOCAL][-5:], fields[_REMOTE][-5:]) == wanted and fields[_INODE] != "0":
            return fields[_INODE]
    return None


def _has(pid: int, inode: str) -> bool:
    wanted = f"socket:[{inode}]"
    try:
        with os.scandir(f"/proc/{pid}/fd") as entries:
            return any(_target(entry.path) == wanted for entry in entries)
    except OSError:
        return False


def _target(path: str) -> str:
    try:
        return str(Path(path).readlink())
    except OSError:
        return ""
