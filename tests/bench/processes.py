"""What processes cost: their CPU time to the nanosecond, their memory, and on which core they run."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import psutil

_KIB = 1024
_LATENCY_ASKED_FOR = Path("/dev/cpu_dma_latency")


def family(pid: int) -> list[int]:
    """A process and all below it; nothing when it is gone."""
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def cpu_us(pids: Iterable[int]) -> float:
    """CPU time of all threads that live, in µs. Source of the format: Linux, Documentation/scheduler/sched-stats."""
    return sum(ns for pid in pids for ns in threads_ns(pid).values()) / 1000


def threads_ns(pid: int) -> dict[int, int]:
    """CPU time of each thread that lives, in ns, by thread id; empty for a process that is gone."""
    found = {}
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found[int(task.name)] = int((task / "schedstat").read_text().split()[0])
    return found


def rss_bytes(pids: Iterable[int]) -> int:
    """Memory that is resident, in bytes, shared pages counted for each."""
    total = 0
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            total += psutil.Process(pid).memory_info().rss
    return total


def pin(pids: Iterable[int], cores: Iterable[int], *, niceness: int = 0) -> None:
    """Keeps processes, with all their threads, on some cores; ``niceness`` above 0 lets others go first.

    Where the scheduler groups by session (autogroup), a thread's own niceness counts within its session only, and the
    group has one, too. Source: sched(7).
    """
    cores = set(cores)
    for pid in pids:
        if niceness and _group(pid) != _group("self"):
            with contextlib.suppress(OSError):
                Path(f"/proc/{pid}/autogroup").write_text(str(niceness))
        for thread in threads_ns(pid):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(thread, cores)
                if niceness:
                    os.setpriority(os.PRIO_PROCESS, thread, niceness)


@contextlib.contextmanager
def quiet(first: Iterable[int]) -> Iterator[None]:
    """Cores do not fall asleep meanwhile, and these processes take theirs from any other at once (``SCHED_FIFO``).

    Raises ``OSError`` where that is not allowed. Sources: Linux, Documentation/power/pm_qos_interface (the file asks
    for a wake-up within 0 µs for as long as it is open), sched(7).
    """
    first = tuple(first)
    with _LATENCY_ASKED_FOR.open("wb", buffering=0) as asked:
        asked.write(struct.pack("i", 0))
        try:
            # Not what they start meanwhile: Redis rewrites its file in a child.
            _schedule(first, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, 1)
            yield
        finally:
            _schedule(first, os.SCHED_OTHER, 0)


def _schedule(pids: Iterable[int], policy: int, priority: int) -> None:
    for pid in pids:
        for thread in threads_ns(pid):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setscheduler(thread, policy, os.sched_param(priority))


def _group(pid: int | str) -> str:
    """The scheduler's group of a process; empty where it has none."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/autogroup").read_text().partition(" ")[0]
    return ""


def cores() -> Sequence[int]:
    """The cores that this process may use."""
    return sorted(os.sched_getaffinity(0))
