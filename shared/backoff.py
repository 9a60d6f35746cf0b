"""Waiting between attempts: exponential with full jitter, so that replicas do not come back in step."""

from __future__ import annotations

import random


class Backoff:
    """Delays that double from ``first_s`` to at most ``last_s``, each drawn evenly from zero to that bound.

    A floor of a tenth of ``first_s`` keeps a busy loop from forming when the draws are unlucky.
    """

    def __init__(self, *, first_s: float = 0.1, last_s: float = 5.0, source: random.Random | None = None) -> None:
        self._first_s = first_s
        self._last_s = last_s
        self._attempts = 0
        self._random = source or random.SystemRandom()

    def next_s(self) -> float:
        """The delay before the next attempt, in seconds."""
        bound_s = min(self._last_s, self._first_s * 2.0**self._attempts)
        self._attempts = min(self._attempts + 1, 32)
        return max(self._first_s / 10.0, self._random.uniform(0.0, bound_s))

    def reset(self) -> None:
        """Starts anew after a success."""
        self._attempts = 0

    def __repr__(self) -> str:
        return f"Backoff(first_s={self._first_s}, last_s={self._last_s}, attempts={self._attempts})"
