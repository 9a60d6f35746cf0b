"""Running programs: started on a leash, started again when they end, stopped in order."""

import json
import signal
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import psutil

from deploy.local.errors import EXIT_CONFIGURATION, ConfigurationError, StackError
from deploy.local.processes import Child, end_leftover, spawn, tail, write_private
from deploy.local.programs import Program

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 5.0
# A program that ran this long was well: the next restart comes at once again.
WELL_AFTER_S = 10.0
LEFTOVER_TIMEOUT_S = 5.0
WAIT_STEP_S = 0.02


class Running:
    """One program as a child process, with its restarts counted."""

    def __init__(self, program: Program, *, logs: Path) -> None:
        self.program = program
        self.log = logs / f"{program.name}.log"
        self._failures = 0
        self._due_at: float | None = None
        self._start()

    def __repr__(self) -> str:
        return f"Running({self.program.name}, pid={self.pid}, status={self.status})"

    @property
    def pid(self) -> int:
        """Process id of the present or last process."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Exit status, None while it runs; negative when a signal ended it."""
        return self._process.poll()

    @property
    def is_ended(self) -> bool:
        """Whether the process has ended and not been started again."""
        return self.status is not None

    @property
    def output(self) -> str:
        """What the present process has written so far."""
        with self.log.open("rb") as file:
            file.seek(self._log_start)
            return file.read().decode(errors="replace")

    def raise_if_hopeless(self) -> None:
        """Raise ConfigurationError when it ended because of its configuration."""
        if self.status == EXIT_CONFIGURATION:
            raise ConfigurationError(f"{self.program.name} refuses its configuration:\n{tail(self.log)}")

    def raise_if_ended(self) -> None:
        """Raise StackError with the end of the log when it is not running."""
        self.raise_if_hopeless()
        if self.is_ended:
            raise StackError(f"{self.program.name} ended with status {self.status}:\n{tail(self.log)}")

    def restart_if_due(self) -> float | None:
        """Start it again if it has ended and its delay is over. Returns the delay in seconds when it has just ended."""
        if not self.is_ended:
            return None
        now = time.monotonic()
        if self._due_at is None:
            self._failures = 0 if now - self._started_at > WELL_AFTER_S else self._failures + 1
            delay_s: float = min(FIRST_DELAY_S * 2**self._failures, LONGEST_DELAY_S)
            self._due_at = now + delay_s
            return delay_s
        if now >= self._due_at:
            self._start()
        return None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if not self.is_ended:
            self._process.send_signal(number)

    def serving_pids(self) -> list[int]:
        """The processes that do the work: the children of a supervising process, else the process itself."""
        if self.is_ended:
            return []
        try:
            children = psutil.Process(self.pid).children(recursive=True)
            return sorted(child.pid for child in children if not _is_tracker(child)) or [self.pid]
        except psutil.NoSuchProcess:
            return []

    def _start(self) -> None:
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        self._process: Child = spawn(self.program.command, log=self.log, environment=self.program.environment)
        self._started_at = time.monotonic()
        self._due_at = None


def stop_all(running: Iterable[Running], *, timeout_s: float, impatient: Callable[[], bool]) -> None:
    """Ask all to stop, wait for them together, and kill what is left after `timeout_s` seconds or on impatience."""
    waiting = list(running)
    for one in waiting:
        one.signal(signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    while not all(one.is_ended for one in waiting):
        if impatient() or time.monotonic() >= deadline:
            for one in waiting:
                one.signal(signal.SIGKILL)
        time.sleep(WAIT_STEP_S)


def remember(path: Path, pids: Iterable[int]) -> None:
    """Write down which processes run, so that the next start can end those that outlive this one."""
    processes = []
    for pid in pids:
        try:
            processes.append({"pid": pid, "created_at": psutil.Process(pid).create_time()})
        except psutil.NoSuchProcess:
            continue
    write_private(path, json.dumps(processes))


def end_remembered(path: Path) -> None:
    """End what an earlier run wrote down and still is the same process; on Linux the kernel has done so already."""
    if not path.exists():
        return
    for entry in json.loads(path.read_text()):
        is_ours = partial(_was_created_at, created_at=entry["created_at"])
        end_leftover(entry["pid"], signal.SIGTERM, is_ours=is_ours, timeout_s=LEFTOVER_TIMEOUT_S)
    path.unlink()


def _was_created_at(process: psutil.Process, *, created_at: float) -> bool:
    return process.create_time() == created_at


def _is_tracker(process: psutil.Process) -> bool:
    """Whether this is a helper of multiprocessing and not a worker."""
    try:
        return any("resource_tracker" in word or "forkserver" in word for word in process.cmdline())
    except psutil.Error:
        return True
