"""Time as a dependency: what waits or measures takes a ``Clock``.

Windows, leases and budget periods never use this clock: they are decided by the TIME of the Redis server, because the
clocks of replicas may differ by minutes.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """A source of time."""

    def monotonic(self) -> float:
        """Seconds that never go backwards; only differences mean something."""
        ...

    def unix_s(self) -> float:
        """Seconds since 1970-01-01T00:00:00Z by the clock of this machine."""
        ...


class SystemClock:
    """The clock of the machine: the functions themselves, because a request looks at it a dozen times."""

    monotonic = staticmethod(time.monotonic)
    unix_s = staticmethod(time.time)

    def __repr__(self) -> str:
        return "SystemClock()"
