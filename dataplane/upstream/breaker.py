"""The circuit breaker of one backend in one worker: pure, synchronous, with the clock as a dependency.

::

    closed ── FAILURES in a row ──> open ── OPEN_S later, the next request ──> half-open ── success ──> closed
                                      ^                                            │
                                      └────────────────── failure ─────────────────┘

Closed lets everybody pass, open nobody, half-open exactly one: the probe. Failures to reach the backend always count.
Bad replies count only when two tenants have seen them, because one tenant's prompts may be the cause; for the same
reason a probe that got a bad reply bars only its own tenant, and the next tenant may probe at once. Without a success
in between, two tenants' bad probes open the breaker again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum

from dataplane.upstream.faults import Blame
from shared.clock import Clock

FAILURES = 5
OPEN_S = 30.0
_TENANTS_FOR_BAD_REPLIES = 2


class State(Enum):
    """What the breaker does with the next request."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """Counts consecutive failures. ``enter`` gives a pass, and each pass is reported back once.

    A pass from before a change of state is ignored when it is reported: a stream that began long ago says nothing
    about a probe that runs now. ``on_change`` hears of each change of state when it happens.
    """

    def __init__(self, clock: Clock, on_change: Callable[[State], None] = lambda _: None) -> None:
        self._clock = clock
        self._on_change = on_change
        self._epoch = 0
        self._unreachable = 0
        self._bad_replies = 0
        self._suspects: set[str] = set()
        self._retry_at_s: float | None = None
        self._probing = False

    @property
    def state(self) -> State:
        """The state now."""
        if self._retry_at_s is None:
            return State.CLOSED
        return State.HALF_OPEN if self._probing or self._clock.monotonic() >= self._retry_at_s else State.OPEN

    def allows(self, tenant: str = "") -> bool:
        """Whether a request of this tenant would pass now."""
        if self._retry_at_s is None:
            return True
        if self._probing:
            return False
        # After one tenant's bad probe only that tenant waits.
        barred = not self._suspects or tenant in self._suspects
        return not barred or self._clock.monotonic() >= self._retry_at_s

    def enter(self, tenant: str = "") -> int | None:
        """A pass for one request, or None when it may not go; when half-open, the pass is the probe."""
        if self._retry_at_s is None:
            return self._epoch
        if not self.allows(tenant):
            return None
        self._probing = True
        self._epoch += 1
        self._on_change(State.HALF_OPEN)
        return self._epoch

    def succeeded(self, given: int) -> None:
        """A reply came to its proper end."""
        if given != self._epoch:
            return
        self._forget()
        if self._retry_at_s is not None:
            self._epoch += 1
            self._retry_at_s = None
            self._probing = False
            self._on_change(State.CLOSED)

    def failed(self, given: int, blame: Blame, tenant: str = "") -> None:
        """The attempt failed; with ``Blame.NONE`` that says nothing, except that a probe is over."""
        if given != self._epoch:
            return
        if self._retry_at_s is not None:
            self._probe_failed(blame, tenant)
            return
        if blame is Blame.UNREACHABLE:
            self._unreachable += 1
        elif blame is Blame.BAD_REPLY:
            self._bad_replies += 1
            # Beyond two, more names would tell nothing.
            if len(self._suspects) < _TENANTS_FOR_BAD_REPLIES:
                self._suspects.add(tenant)
        believed = self._bad_replies if len(self._suspects) >= _TENANTS_FOR_BAD_REPLIES else 0
        if self._unreachable + believed >= FAILURES:
            self._open()

    def retry_after_s(self) -> int:
        """Whole seconds until a request may pass, at least 1."""
        if self._retry_at_s is None:
            return 1
        return max(1, math.ceil(self._retry_at_s - self._clock.monotonic()))

    def _probe_failed(self, blame: Blame, tenant: str) -> None:
        self._probing = False
        if blame is Blame.NONE:
            return
        if blame is Blame.BAD_REPLY and not self._suspects - {tenant}:
            self._suspects.add(tenant)
            self._retry_at_s = self._clock.monotonic() + OPEN_S
            self._on_change(State.OPEN)
            return
        self._open()

    def _open(self) -> None:
        self._epoch += 1
        self._probing = False
        self._retry_at_s = self._clock.monotonic() + OPEN_S
        self._forget()
        self._on_change(State.OPEN)

    def _forget(self) -> None:
        self._unreachable = self._bad_replies = 0
        self._suspects.clear()

    def __repr__(self) -> str:
        return f"Breaker(state={self.state.value}, unreachable={self._unreachable}, bad_replies={self._bad_replies})"
