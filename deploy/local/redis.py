"""A private Redis (or Valkey) as a child process: loopback, a random password, append-only file, and never an eviction.

    with Redis(folder) as redis:
        connect(redis.url)

`stop`, `kill` and `start` can follow each other; port, password and data stay. The configuration is a private file,
so the password is in no command line; the same file lets anybody else start the same server again (`redis.cmd` beside
it does).

Besides the default user there is one for each kind of process, with the least that it needs: `deploy/redis/users.conf`.
"""

import hashlib
import os
import shutil
import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.local import binaries
from deploy.local.errors import StackError
from deploy.local.ports import HOST, free_port
from deploy.local.processes import (
    Child,
    end,
    end_leftover,
    plain_environment,
    spawn,
    tail,
    write_command,
    write_private,
)
from deploy.local.state import Secrets
from deploy.local.waiting import Pause, wait_until

DEFAULT_MAXMEMORY = "256mb"
USERS = Path(__file__).parents[1] / "redis" / "users.conf"
DATAPLANE, CONTROLPLANE, OPERATOR = "dataplane", "controlplane", "operator"
DATA = "redis"
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
PROBE_TIMEOUT_S = 1.0
# For servers on the C library's allocator, as the wheel's is: of each size, a script frees more pieces at once than the
# seven that are kept at hand by default. Source: The GNU C Library manual, "Memory Allocation Tunables".
ALLOCATOR = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=127"}


class Redis:
    """A Redis server of our own; a context manager that starts and stops it.

    Needs Redis 7.0 or newer, or Valkey. `settings` are lines of its configuration and win over the defaults made here.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        secrets: Secrets | None = None,
    ) -> None:
        self.folder = folder.absolute()
        self.log = self.folder / "logs" / "redis-1.log"
        self.configuration = self.folder / "redis.conf"
        self.port = port or free_port()
        self._data = self.folder / DATA
        self._secrets = secrets or Secrets(self.folder / "secrets.json")
        self._settings = dict(settings or {})
        self._process: Child | None = None

    def __repr__(self) -> str:
        return f"Redis({self.folder}, port={self.port}, {'running' if self.is_running else 'stopped'})"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Address with the password of the default user, who may do everything."""
        return f"redis://:{self._password}@{HOST}:{self.port}/0"

    def url_of(self, process: str) -> str:
        """Address for a kind of process: ``DATAPLANE``, ``CONTROLPLANE`` or ``OPERATOR``."""
        return f"redis://gateway_{process}:{self._password_of(process)}@{HOST}:{self.port}/0"

    @property
    def pid(self) -> int:
        """Process id of the server that was started last. Raises StackError before the first start."""
        if self._process is None:
            raise StackError("Redis was not started")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the server that was started here still runs."""
        return self._process is not None and self._process.poll() is None

    def start(self, *, pause: Pause = time.sleep) -> None:
        """Start the server and return when it has loaded its data. Raises StackError, with the log's end, if not."""
        if self.is_running:
            return
        server = binaries.redis_server()
        self._data.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.end_leftover(self.folder)
        write_private(self.configuration, self._configured())
        command = [str(server), str(self.configuration)]
        write_command(self.folder / "redis.cmd", command)
        self._process = spawn(
            command,
            log=self.log,
            environment=plain_environment(os.environ) | ALLOCATOR,
            death_signal=signal.SIGTERM,
            cwd=self._data,
        )
        wait_until(self._answers, timeout_s=START_TIMEOUT_S, what="Redis", pause=pause, log=self.log)

    def stop(self) -> None:
        """Stop the server; what it acknowledged is on disk."""
        if self._process is not None:
            end(self._process, signal.SIGTERM, timeout_s=STOP_TIMEOUT_S)

    def kill(self) -> None:
        """Kill the server as a crash would."""
        if self._process is not None:
            end(self._process, signal.SIGKILL, timeout_s=STOP_TIMEOUT_S)

    def remove(self) -> None:
        """Stop the server, also one that others started from its configuration, and delete its data."""
        self.stop()
        self.end_leftover(self.folder)
        shutil.rmtree(self._data, ignore_errors=True)

    @staticmethod
    def end_leftover(folder: Path) -> None:
        """Stop the server that runs on this folder's data, whoever started it."""
        data = folder / DATA
        try:
            pid = int((data / "redis.pid").read_text())
        except (OSError, ValueError):
            return
        place = str(data.resolve())
        end_leftover(pid, signal.SIGTERM, is_ours=lambda one: one.cwd() == place, timeout_s=STOP_TIMEOUT_S)

    @property
    def _password(self) -> str:
        return self._secrets.get("redis")

    def _password_of(self, process: str) -> str:
        return self._secrets.get(f"redis_{process}")

    def _users(self) -> str:
        lines = USERS.read_text()
        for process in (DATAPLANE, CONTROLPLANE, OPERATOR):
            hashed = hashlib.sha256(self._password_of(process).encode()).hexdigest()
            lines = lines.replace(f"@{process}@", hashed)
        return lines

    def _configured(self) -> str:
        settings = {
            "bind": HOST,
            "port": str(self.port),
            "requirepass": self._password,
            "dir": f'"{self._data}"',
            "pidfile": f'"{self._data / "redis.pid"}"',
            "daemonize": "no",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": '""',
            "maxmemory": DEFAULT_MAXMEMORY,
            "maxmemory-policy": "noeviction",
            # As in deploy/redis/redis.conf.
            "zset-max-listpack-entries": "8",
        } | self._settings
        return "".join(f"{name} {value}\n" for name, value in settings.items()) + self._users()

    def _answers(self) -> bool:
        if not self.is_running:
            raise StackError(f"Redis did not start:\n{tail(self.log)}")
        try:
            with socket.create_connection((HOST, self.port), PROBE_TIMEOUT_S) as probe, probe.makefile("rb") as replies:
                probe.sendall(f"AUTH {self._password}\r\nPING\r\n".encode())
                return [replies.readline(), replies.readline()] == [b"+OK\r\n", b"+PONG\r\n"]
        except OSError:
            return False
