"""How much callers may ask for, so that nobody's calls keep data planes from their state.

Three bounds, none of which holds for data planes: calls per second of one caller, calls at the same time of one caller
and of all callers together. Calls without credentials have a bound of their own. What is beyond a bound is refused at
once; the whole of all bounds stays far below what the server takes, so that there is always room for a watch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from controlplane.core.roles import Caller, Role
from shared.clock import Clock

BURST_S = 5
MAX_CALLS_OF_ONE = 100
MAX_CALLS_OF_ALL = 400
# Callers without credentials that are waited for, so that they read why they were refused; others are cut off.
MAX_PATIENTLY_REFUSED = 64


class CallBounds:
    """Counts the calls of this process. ``calls_per_s`` is for one caller, on average over ``BURST_S`` seconds."""

    def __init__(self, *, clock: Clock, calls_per_s: int) -> None:
        self._clock = clock
        self._calls_per_s = calls_per_s
        # When the allowance of a caller would be whole again, by name: callers are those of the configuration.
        self._whole_at_s: dict[str, float] = {}
        self._running: Counter[str] = Counter()
        self._refused = 0

    def may_call(self, caller: Caller) -> bool:
        """Whether the caller may begin a call now; counts it against its rate."""
        if caller.role is Role.DATAPLANE:
            return True
        if self._running[caller.name] >= MAX_CALLS_OF_ONE or self._running.total() >= MAX_CALLS_OF_ALL:
            return False
        now_s = self._clock.monotonic()
        whole_at_s = max(now_s, self._whole_at_s.get(caller.name, now_s)) + 1 / self._calls_per_s
        if whole_at_s - now_s > BURST_S:
            return False
        self._whole_at_s[caller.name] = whole_at_s
        return True

    @contextmanager
    def running(self, caller: Caller) -> Iterator[None]:
        """Counts the call while it runs."""
        if caller.role is Role.DATAPLANE:
            yield
            return
        self._running[caller.name] += 1
        try:
            yield
        finally:
            self._running[caller.name] -= 1

    @contextmanager
    def refusing(self) -> Iterator[bool]:
        """Counts a refusal while it lasts; says whether there is time to wait for what the caller sends."""
        self._refused += 1
        try:
            yield self._refused <= MAX_PATIENTLY_REFUSED
        finally:
            self._refused -= 1

    def __repr__(self) -> str:
        return f"CallBounds({self._running.total()} running, {self._refused} being refused)"
