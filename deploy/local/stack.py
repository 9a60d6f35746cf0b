"""The whole gateway on one machine: Postgres, Redis, both planes and, for the demo, a mock Ollama.

    with StateFolder(path) as state:
        stack = Stack(options, state=state)
        try:
            stack.start()
            stack.supervise()   # until a signal
        finally:
            stack.stop()

The planes are restarted when they end. Postgres and Redis are not: whoever stopped them may start them again on the
same port and state, and the planes recover by themselves.
"""

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

from deploy.local import postgres, readiness, redis
from deploy.local.errors import StackError
from deploy.local.options import Options
from deploy.local.ports import PortBook
from deploy.local.postgres import Postgres
from deploy.local.processes import run
from deploy.local.programs import CONTROL, DATA, MOCK, Planner, Program, Stores
from deploy.local.redis import Redis
from deploy.local.state import StateFolder
from deploy.local.supervisor import Running, end_remembered, remember, stop_all
from deploy.local.waiting import Pause, wait_until

DRAIN_TIMEOUT_S = 45.0
STOP_TIMEOUT_S = 15.0
WATCH_STEP_S = 0.25

type Report = Callable[[str], None]


class Stack:
    """Starts, watches, describes and stops everything; call it from one thread that outlives the stack.

    It takes over the state folder: processes that an earlier run left over are ended.

    `report` gets a sentence for each step, `pause` sleeps and may raise to interrupt, `impatient` says while stopping
    whether to stop asking politely.
    """

    def __init__(
        self,
        options: Options,
        *,
        state: StateFolder,
        report: Report = lambda _: None,
        pause: Pause = time.sleep,
        impatient: Callable[[], bool] = lambda: False,
    ) -> None:
        self.options = options
        self.state = state
        self.logs = state.path / "logs"
        self._report = report
        self._pause = pause
        self._impatient = impatient
        self._record = state.path / "processes.json"
        self._end_leftovers()  # first, so that their ports are free again
        self._ports = PortBook(state.path / "ports.json")
        self._running: list[Running] = []
        self._recorded: list[int] = []
        self.redis = Redis(
            state.path,
            port=self._ports.assign("redis"),
            settings={"maxmemory": options.redis_maxmemory, "maxmemory-policy": options.redis_policy},
            secrets=state.secrets,
        )
        self.postgres = Postgres(state.path, port=self._ports.assign("postgres"), secrets=state.secrets)

    def __repr__(self) -> str:
        return f"Stack({self.state.path}, {len(self._running)} programs)"

    def start(self) -> None:
        """Start everything and return when all of it is ready. Raises StackError, with the end of a log, if not."""
        self.postgres.start(pause=self._pause)
        self._report(f"Postgres listens on port {self.postgres.port}")
        self.redis.start(pause=self._pause)
        self._report(f"Redis listens on port {self.redis.port}")
        planner = Planner(
            self.options,
            secrets=self.state.secrets,
            ports=self._ports,
            stores=Stores(
                redis_of_data=self.redis.url_of(redis.DATAPLANE),
                redis_of_control=self.redis.url_of(redis.CONTROLPLANE),
                postgres_of_control=self.postgres.role_dsn(postgres.CONTROL),
                postgres_of_owner=self.postgres.owner_dsn,
            ),
        )
        mock = planner.mock() if self.options.mock else None
        if mock:
            self._launch([mock], "the mock Ollama listens")
        self._migrate(planner)
        control_planes = planner.control_planes(mock)
        self._launch(control_planes, "the control plane is serving")
        self._launch(planner.data_planes(control_planes), "the data plane is ready")

    def supervise(self) -> NoReturn:
        """Restart planes that end, until `pause` raises. Raises ConfigurationError when a restart cannot help."""
        while True:
            self._pause(WATCH_STEP_S)
            for running in self._running:
                if running.program.role == MOCK:
                    continue
                running.raise_if_hopeless()
                status = running.status
                delay_s = running.restart_if_due()
                if delay_s is not None:
                    self._report(f"{running.program.name} ended with status {status}; restarting in {delay_s:g} s")
            self._remember()

    def stop(self) -> None:
        """Stop everything, in the order in which nothing misses what it needs: first the requests, last the data."""
        for role, timeout_s in ((DATA, DRAIN_TIMEOUT_S), (CONTROL, STOP_TIMEOUT_S), (MOCK, STOP_TIMEOUT_S)):
            stop_all(self._of(role), timeout_s=timeout_s, impatient=self._impatient)
        self._running.clear()
        self.redis.stop()
        self.postgres.stop()
        self._record.unlink(missing_ok=True)

    def remove(self) -> None:
        """Delete all state."""
        self.redis.remove()
        self.postgres.remove()
        self.state.remove()

    def describe(self) -> dict[str, Any]:
        """What a program needs to use this stack, credentials included; only for a stack that has started."""
        data, control = self.programs(DATA), self.programs(CONTROL)
        mocks = [readiness.announced(running) for running in self._of(MOCK)]
        described: dict[str, Any] = {
            "gateway_urls": [plane.url for plane in data],
            "playground_url": f"{data[0].url}/playground" if data[0].has_playground else None,
            "metrics_urls": [plane.metrics_url for plane in (*data, *control)],
            "admin_address": control[0].address,
            "admin_addresses": [plane.address for plane in control],
            "admin_token": control[0].environment["GATEWAY_ADMIN_TOKEN"],
            "redis_url": self.redis.url,
            "postgres_dsn": self.postgres.dsn,
            "redis_urls": {
                name: self.redis.url_of(name) for name in (redis.DATAPLANE, redis.CONTROLPLANE, redis.OPERATOR)
            },
            "postgres_dsns": {
                name: self.postgres.role_dsn(name) for name in (postgres.CONTROL, postgres.OPERATOR, postgres.CONSOLE)
            },
            "pids": self.pids(),
            "state_dir": str(self.state.path),
            "logs": self._log_files(),
        }
        if mocks:
            described["mock_ollama_urls"] = [mock["url"] for mock in mocks]
            described["mock_ollama_control_urls"] = [mock["control_url"] for mock in mocks]
        return described

    def programs(self, role: str) -> list[Program]:
        """The programs of one role, in the order of their numbers."""
        return [running.program for running in self._of(role)]

    def pids(self) -> dict[str, list[int]]:
        """Process ids by role. `dataplane` are the workers, which serve requests, `dataplane_main` their parents."""
        return {
            "up": [os.getpid()],
            "dataplane": [pid for running in self._of(DATA) for pid in running.serving_pids()],
            "dataplane_main": [running.pid for running in self._of(DATA)],
            "controlplane": [running.pid for running in self._of(CONTROL)],
            "mock_ollama": [running.pid for running in self._of(MOCK)],
            "postgres": [self.postgres.pid],
            "redis": [self.redis.pid],
        }

    def _migrate(self, planner: Planner) -> None:
        """Bring the schema up to date: the planes are no owners of it."""
        command, environment = planner.migration()
        status, output = run(command, further=environment)
        if status != 0:
            raise StackError(f"the schema could not be brought up to date:\n{output.strip()}")
        self._report("the schema is up to date")

    def _end_leftovers(self) -> None:
        end_remembered(self._record)
        Redis.end_leftover(self.state.path)
        Postgres.end_leftover(self.state.path)

    def _of(self, role: str) -> list[Running]:
        return [running for running in self._running if running.program.role == role]

    def _launch(self, programs: Sequence[Program], done: str) -> None:
        """Start programs at the same time and wait until all of them are ready."""
        started = []
        for program in programs:
            running = Running(program, logs=self.logs)
            started.append(running)
            self._running.append(running)
        self._remember()
        for running in started:
            wait_until(
                partial(readiness.is_ready, running),
                timeout_s=self.options.ready_timeout_s,
                what=running.program.name,
                pause=self._pause,
                log=running.log,
            )
        ports = ", ".join(str(program.port) for program in programs)
        self._report(f"{done} on port {ports}")

    def _remember(self) -> None:
        """Keep the record of processes true; it is written only when it changes."""
        pids = [running.pid for running in self._running]
        if pids != self._recorded:
            remember(self._record, [*pids, self.redis.pid, self.postgres.pid])
            self._recorded = pids

    def _log_files(self) -> dict[str, str]:
        """Log files by role; further replicas of a role have their number in the name."""
        files = {"postgres": self.postgres.log, "redis": self.redis.log}
        for running in self._running:
            role, number = running.program.role, running.program.number
            files[role if number == 1 else f"{role}-{number}"] = running.log
        return {role: str(log) for role, log in files.items()}
