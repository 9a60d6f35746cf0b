"""A private Postgres as a child process: TCP on loopback, a random password, its data in one folder.

    with Postgres(folder, fsync=False) as postgres:
        connect(postgres.dsn)

`stop`, `kill` and `start` can follow each other; port, password and data stay. A server that an earlier run left over
in the same folder is stopped first, so call only one at a time for a folder (`StateFolder` has a lock for that).
"""

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from deploy.local import binaries, identity
from deploy.local.errors import StackError
from deploy.local.identity import Home
from deploy.local.ports import HOST, free_port
from deploy.local.processes import (
    Child,
    RunAs,
    end,
    end_leftover,
    leashed,
    plain_environment,
    run,
    spawn,
    tail,
    write_command,
)
from deploy.local.state import Secrets
from deploy.local.waiting import Pause, wait_until

DATABASE = "gateway"
SUPERUSER = "postgres"
OWNER = "gateway"
# Roles of processes and people, and the secret and variable that hold the password of each.
ROLES = Path(__file__).parents[1] / "postgres" / "roles.sql"
CONTROL, OPERATOR, CONSOLE = "gateway_control", "gateway_operator", "console"
_PASSWORDS = {
    CONTROL: ("postgres_control", "GATEWAY_CONTROL_PASSWORD"),
    OPERATOR: ("postgres_operator", "GATEWAY_OPERATOR_PASSWORD"),
    CONSOLE: ("postgres_console", "GATEWAY_CONSOLE_PASSWORD"),
}
MAX_CONNECTIONS = 200
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 20.0
STATUS_LINE = 7  # of postmaster.pid, counted from 0: "starting", "ready" or "stopping"


class Postgres:
    """A Postgres server of our own; a context manager that starts and stops it.

    Needs Postgres 15 or newer. `fsync=False` is for tests: fast, and lost with the machine, not with the process.
    `settings` are passed as they are. The server has one database, `gateway`, owned by the role `gateway`, which may
    create roles but is no superuser, and the roles of `deploy/postgres/roles.sql`, which get their rights from the
    migrations.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        fsync: bool = True,
        settings: Mapping[str, str] | None = None,
        secrets: Secrets | None = None,
        run_as: RunAs | None = None,
    ) -> None:
        self.folder = folder.absolute()
        self.log = self.folder / "logs" / "postgres-1.log"
        self.port = port or free_port()
        self._secrets = secrets or Secrets(self.folder / "secrets.json")
        self._settings = dict(settings or {}) | ({} if fsync else {"fsync": "off", "full_page_writes": "off"})
        self._run_as = run_as
        self._process: Child | None = None

    def __repr__(self) -> str:
        return f"Postgres({self.folder}, port={self.port}, {'running' if self.is_running else 'stopped'})"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def dsn(self) -> str:
        """Address of the database `gateway` for the superuser."""
        return self.dsn_of(DATABASE)

    @property
    def owner_dsn(self) -> str:
        """Address of the database `gateway` for its owner: who migrates."""
        return f"postgres://{OWNER}:{self._secrets.get('postgres_owner')}@{HOST}:{self.port}/{DATABASE}"

    def role_dsn(self, role: str) -> str:
        """Address of the database `gateway` for one of the roles ``CONTROL``, ``OPERATOR`` and ``CONSOLE``."""
        password = self._secrets.get(_PASSWORDS[role][0])
        return f"postgres://{role}:{password}@{HOST}:{self.port}/{DATABASE}"

    def dsn_of(self, database: str) -> str:
        """Address of any database for the superuser."""
        return f"postgres://{SUPERUSER}:{self._secrets.get('postgres_superuser')}@{HOST}:{self.port}/{database}"

    @property
    def pid(self) -> int:
        """Process id of the postmaster that was started last. Raises StackError before the first start."""
        if self._process is None:
            raise StackError("Postgres was not started")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the server that was started here still runs."""
        return self._process is not None and self._process.poll() is None

    def start(self, *, pause: Pause = time.sleep) -> None:
        """Start the server and return when it accepts connections. Raises StackError, with the log's end, if not."""
        if self.is_running:
            return
        programs = binaries.postgres_bin()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        home = identity.settle(self.folder, programs, self._run_as or identity.choose(self.folder))
        self.end_leftover(self.folder)
        if home.data.exists():
            _check_major(home)
        else:
            self._initialise(home)
        command = self._command(home)
        write_command(self.folder / "postgres.cmd", leashed(command, death_signal=None, run_as=home.run_as))
        self._process = spawn(
            command,
            log=self.log,
            environment=plain_environment(os.environ),
            death_signal=signal.SIGINT,
            run_as=home.run_as,
            cwd=Path("/"),
        )
        wait_until(
            lambda: self._accepts(home.data), timeout_s=START_TIMEOUT_S, what="Postgres", pause=pause, log=self.log
        )
        self._make_roles(programs)

    def stop(self) -> None:
        """Stop the server: running transactions are rolled back, sessions are closed."""
        if self._process is not None:
            end(self._process, signal.SIGINT, timeout_s=STOP_TIMEOUT_S)

    def kill(self) -> None:
        """Kill the server and all its processes, as a crash of the machine would."""
        if self._process is None or not self.is_running:
            return
        backends = psutil.Process(self._process.pid).children(recursive=True)
        end(self._process, signal.SIGKILL, timeout_s=STOP_TIMEOUT_S)
        for backend in backends:
            with contextlib.suppress(psutil.NoSuchProcess):
                backend.kill()
        psutil.wait_procs(backends, timeout=STOP_TIMEOUT_S)

    def remove(self) -> None:
        """Stop the server and delete its data, wherever they are."""
        self.stop()
        self.end_leftover(self.folder)
        identity.leave(self.folder)

    @staticmethod
    def end_leftover(folder: Path) -> None:
        """Stop the server that runs on this folder's data, whoever started it."""
        data = folder / identity.LINK
        lines = _lock_lines(data)
        if lines and lines[0].isdigit():
            place = str(data.resolve())
            end_leftover(int(lines[0]), signal.SIGINT, is_ours=lambda one: one.cwd() == place, timeout_s=STOP_TIMEOUT_S)

    def _command(self, home: Home) -> list[str]:
        settings = {
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": str(MAX_CONNECTIONS),
        } | self._settings
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [str(home.programs / "postgres"), "-D", str(home.data), *options]

    def _initialise(self, home: Home) -> None:
        """Make the data folder under another name and move it into place when it is whole."""
        draft = home.data.with_name(f"{home.data.name}.new")
        password_file = home.data.with_name(f"{home.data.name}.password")
        shutil.rmtree(draft, ignore_errors=True)
        password_file.unlink(missing_ok=True)
        with os.fdopen(os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(self._secrets.get("postgres_superuser"))
        home.private(password_file)
        try:
            program = str(home.programs / "initdb")
            authentication = ("-U", SUPERUSER, "-A", "scram-sha-256", "--pwfile", str(password_file))
            _run(home, [program, "-D", str(draft), *authentication, "-E", "UTF8", "--no-locale", "--no-sync"])
        finally:
            password_file.unlink(missing_ok=True)
        statements = (
            f"CREATE ROLE {OWNER} LOGIN CREATEROLE PASSWORD '{self._secrets.get('postgres_owner')}'\n"
            f"CREATE DATABASE {DATABASE} OWNER {OWNER}\n"
        )
        # One process and no connection: the server does not listen before it is whole.
        output = _run(
            home, [str(home.programs / "postgres"), "--single", "-F", "-D", str(draft), SUPERUSER], statements
        )
        if "ERROR:" in output or "FATAL:" in output:
            raise StackError(f"Postgres could not make the database {DATABASE}:\n{output}")
        draft.rename(home.data)

    def _make_roles(self, programs: Path) -> None:
        """Make the roles, also on data of an earlier release. Passwords travel in the environment."""
        environment = {variable: self._secrets.get(secret) for secret, variable in _PASSWORDS.values()}
        environment["PGPASSWORD"] = self._secrets.get("postgres_superuser")
        address = ("-h", HOST, "-p", str(self.port), "-U", SUPERUSER, "-d", DATABASE)
        command = [str(programs / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", *address, "-f", str(ROLES)]
        status, output = run(command, further=environment)
        if status != 0:
            raise StackError(f"Postgres could not make its roles:\n{output.strip()}")

    def _accepts(self, data: Path) -> bool:
        if not self.is_running:
            raise StackError(f"Postgres did not start:\n{tail(self.log)}")
        lines = _lock_lines(data)
        return len(lines) > STATUS_LINE and lines[0] == str(self.pid) and lines[STATUS_LINE].strip() == "ready"


def _run(home: Home, command: list[str], standard_input: str = "") -> str:
    """Run one of Postgres's programs to its end and return what it said. Raises StackError when it fails."""
    status, output = run(command, standard_input=standard_input, run_as=home.run_as)
    if status != 0:
        raise StackError(f"{Path(command[0]).name} failed:\n{output.strip()}")
    return output


def _check_major(home: Home) -> None:
    made_by = (home.data / "PG_VERSION").read_text().strip()
    major = binaries.postgres_major(home.programs)
    if made_by != str(major):
        raise StackError(
            f"{home.data} was made by Postgres {made_by}, this is Postgres {major}: "
            "set GATEWAY_PG_BIN to the programs of that version, or start with another state folder"
        )


def _lock_lines(data: Path) -> list[str]:
    try:
        return (data / "postmaster.pid").read_text().splitlines()
    except OSError:
        return []
