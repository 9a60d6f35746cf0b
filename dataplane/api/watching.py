"""What is noticed of clients by one look at all of them: those that stop reading, and those that leave.

A timer or a task for each request would cost more than most of what a request does; here a request that is answered at
once is entered into a dictionary and taken out again.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from dataplane.errors import ClientClosedError
from dataplane.interrupt import Interrupt


class Writer(Protocol):
    """A request that is being answered; while it writes, since when on the loop's clock."""

    interrupt: Interrupt
    writing_since_s: float | None


class Asker(Protocol):
    """A request whose client may leave."""

    def start_watching(self) -> None:
        """Has the request end when its client leaves, or has left since its body was read."""
        ...


class Stalls:
    """Writes that are waiting for a client to read; one look per second ends those that wait too long."""

    PERIOD_S = 1.0

    def __init__(self, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._answering: dict[Writer, None] = {}

    def expect(self, exchange: Writer) -> None:
        """From now on it writes."""
        self._answering[exchange] = None

    def forget(self, exchange: Writer) -> None:
        """The request is over."""
        self._answering.pop(exchange, None)

    async def watch(self) -> None:
        """Runs until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.PERIOD_S)
            oldest_s = loop.time() - self._timeout_s
            for exchange in self._answering:
                if exchange.writing_since_s is not None and exchange.writing_since_s < oldest_s:
                    exchange.interrupt.fire(ClientClosedError("the client stopped reading"))

    def __repr__(self) -> str:
        return f"Stalls(answering={len(self._answering)})"


class Departures:
    """Requests whose clients are not watched yet: what is not answered at the next look gets a watcher of its own."""

    PERIOD_S = 0.05

    def __init__(self) -> None:
        self._unwatched: dict[Asker, None] = {}

    def expect(self, exchange: Asker) -> None:
        """From now on the client may leave."""
        self._unwatched[exchange] = None

    def forget(self, exchange: Asker) -> None:
        """The request is over."""
        self._unwatched.pop(exchange, None)

    async def watch(self) -> None:
        """Runs until cancelled."""
        while True:
            await asyncio.sleep(self.PERIOD_S)
            unwatched, self._unwatched = self._unwatched, {}
            for exchange in unwatched:
                exchange.start_watching()

    def __repr__(self) -> str:
        return f"Departures(unwatched={len(self._unwatched)})"
