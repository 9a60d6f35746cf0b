"""A clock that a test moves."""

from __future__ import annotations


class ManualClock:
    """Stands still until ``now_s`` is set."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def monotonic(self) -> float:
        return self.now_s

    def unix_s(self) -> float:
        return self.now_s
