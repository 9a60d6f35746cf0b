"""Makes the faults of a plan happen to a fleet, and undoes each when its time is over."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence

import psutil
import redis as redis_client

from tests.e2e.harness import eventually
from tests.fakes.tcp_proxy import Link
from tests.faults.fleet import Fleet
from tests.faults.nemesis.history import History
from tests.faults.nemesis.plan import Fault

# A link that is slow, not away: within the deadlines of some of what passes and beyond those of others.
SLOW_S = (0.02, 0.25)
NARROW_BYTES_PER_S = 20_000


def strike(fleet: Fleet, faults: Sequence[Fault], history: History, *, pause: Callable[[float], None]) -> None:
    """Plays the plan from now on. ``pause`` sleeps, and may raise to end it; whatever still holds then is undone."""
    start_s = time.monotonic()
    steps = sorted(
        [(fault.at_s, 1, fault) for fault in faults] + [(fault.until_s, 0, fault) for fault in faults], key=_when
    )
    with contextlib.ExitStack() as whole:
        held: dict[int, contextlib.ExitStack] = {}
        for at_s, is_beginning, fault in steps:
            pause(max(0.0, start_s + at_s - time.monotonic()))
            if is_beginning:
                held[fault.number] = whole.enter_context(contextlib.ExitStack())
                held[fault.number].enter_context(_happening(fleet, fault, history))
            else:
                held[fault.number].close()


def _when(step: tuple[float, int, Fault]) -> tuple[float, int, int]:
    return step[0], step[1], step[2].number


@contextlib.contextmanager
def _happening(fleet: Fleet, fault: Fault, history: History) -> Iterator[None]:
    """From when it is felt for certain until just before it is undone: that is the time that the history tells."""
    happening = _on_link if ">" in fault.where else _on_process
    with happening(fleet, fault):
        history.add("struck", number=fault.number, kind=fault.kind, where=fault.where)
        try:
            yield
        finally:
            history.add("healed", number=fault.number)


@contextlib.contextmanager
def _on_link(fleet: Fleet, fault: Fault) -> Iterator[None]:
    link = fleet.link(*fault.where.split(">"))
    _spoil(link, fault)
    try:
        yield
    finally:
        link.heal()


def _spoil(link: Link, fault: Fault) -> None:
    source = random.Random(fault.number)
    match fault.kind:
        case "hold":
            link.hold_requests = link.hold_replies = True
        case "hold requests":
            link.hold_requests = True
        case "hold replies":
            link.hold_replies = True
        case "delay":
            link.delay = lambda: source.uniform(*SLOW_S)
        case "slice":
            link.slice_bytes = 1
        case "narrow":
            link.bytes_per_s = NARROW_BYTES_PER_S
        case "refuse" | "hang":
            # What is open carries nothing from this moment on, and is cut a moment later.
            link.hold_requests = link.hold_replies = True
            link.refuses, link.hangs = fault.kind == "refuse", fault.kind == "hang"
            link.reset()
        case _:
            link.reset()


@contextlib.contextmanager
def _on_process(fleet: Fleet, fault: Fault) -> Iterator[None]:
    name, gateway = fault.where, fleet.gateway
    match fault.kind, name:
        case "stop", _:
            stopped = fleet.pids(name)
            fleet.signal(name, signal.SIGSTOP)
            eventually(lambda: all(map(_is_stopped, stopped)), what=f"that {name} stands still")
            yield
            fleet.signal(name, signal.SIGCONT)
        case "kill", "redis" | "postgres":
            gateway.signal_server(name, signal.SIGKILL if name == "redis" else signal.SIGQUIT)
            yield
            gateway.start_again(f"{name}.cmd")
        case "kill" | "terminate", _:
            fleet.signal(name, signal.SIGKILL if fault.kind == "kill" else signal.SIGTERM)
            yield
        case _:
            with contextlib.suppress(redis_client.RedisError):
                if fault.kind == "empty":
                    gateway.redis.flushall()
                else:
                    gateway.redis.script_flush()
                    gateway.redis.function_flush()
            yield


def _is_stopped(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
