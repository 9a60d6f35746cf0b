"""The course of one scenario: what was asked, how it was answered and by whom, and what the circuit breaker did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from tests.bench.victim import Victim

# Longer than usual by so much is noticed.
NOTICED_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """How the first backend is struck down, for how long, and how long is watched from the blow on."""

    title: str
    strikes: Callable[[Victim], AbstractContextManager[None]]
    lasts_s: int
    watched_s: int
    # How long a model that is listed no more counts as offered.
    discovery_ttl_s: int = 900


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request; moments in seconds since the blow. Status 0: the connection broke without a reply."""

    at_s: float
    took_s: float
    status: int
    was_ended: bool
    backend: str

    @property
    def outcome(self) -> str:
        """``ok``, ``broken`` (a stream that was cut after its error event), or ``failed``."""
        if self.status != 200:
            return "failed"
        return "ok" if self.was_ended else "broken"


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What happened in one scenario. ``breaker``: moments and states."""

    scenario: Scenario
    asked: Sequence[Asked]
    breaker: Sequence[tuple[float, str]]

    @property
    def usual_s(self) -> float:
        """The longest that a request took before the blow."""
        return max(one.took_s for one in self.asked if one.at_s + one.took_s < 0)

    def noticed(self, outcome: str) -> list[Asked]:
        """Requests that failed or broke off, or that came through but were ``late``."""
        if outcome == "late":
            return [one for one in self.asked if one.outcome == "ok" and one.took_s > self.usual_s + NOTICED_S]
        return [one for one in self.asked if one.outcome == outcome]

    def answered_by(self, backend: str) -> list[Asked]:
        """Requests that this backend answered to their end."""
        return [one for one in self.asked if one.outcome == "ok" and one.backend == backend]

    def came_into(self, state: str) -> list[float]:
        """When the breaker came into a state."""
        return [at_s for at_s, name in self.breaker if name == state]
