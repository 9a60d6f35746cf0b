"""A process's life in four words: starting, ready, draining, and always live until it ends.

Readiness is a set of named checks that must all hold; draining is a latch that never opens again. Neither does any
I/O: those who learn something say it here, and those who answer health checks read it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable


class Readiness:
    """Named conditions for taking traffic; all must hold."""

    def __init__(self, checks: Iterable[str]) -> None:
        self._holds = dict.fromkeys(checks, False)
        self._draining = asyncio.Event()

    def report(self, check: str, *, holds: bool) -> None:
        """Says whether a condition holds; an unknown name raises ``KeyError``."""
        if check not in self._holds:
            raise KeyError(check)
        self._holds[check] = holds

    def start_draining(self) -> None:
        """Takes the process out of service for good; work in flight goes on."""
        self._draining.set()

    async def drain_started(self) -> None:
        """Returns when draining has begun."""
        await self._draining.wait()

    @property
    def draining(self) -> bool:
        """Whether the process is on its way out."""
        return self._draining.is_set()

    @property
    def failing(self) -> tuple[str, ...]:
        """Names of the conditions that do not hold, ``draining`` among them."""
        names = tuple(name for name, holds in self._holds.items() if not holds)
        return (*names, "draining") if self.draining else names

    @property
    def ready(self) -> bool:
        """Whether traffic may come."""
        return not self.failing

    def __repr__(self) -> str:
        return f"Readiness(failing={self.failing})"
