"""What is noticed of clients by one look at all of them: those that neither send nor read, and those that leave.

A timer or a task for each request would cost more than most of what a request does; here a request that waits for its
client notes a moment, and one that is answered at once is entered into a dictionary and taken out again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Protocol


class Waiter(Protocol):
    """A request; ``due_s`` is when, on the loop's clock, its client must have sent or read something, or infinity."""

    due_s: float

    def overdue(self) -> None:
        """Ends the request: the client has not done its part in time."""
        ...


class Asker(Protocol):
    """A request whose client may leave."""

    def start_watching(self) -> None:
        """Has the request end when its client leaves, or has left since its body was read."""
        ...


class Patience:
    """What clients take too long for: a body that does not come, a reply that nobody reads."""

    PERIOD_S = 0.25

    def __init__(self, waiters: Collection[Waiter]) -> None:
        self._waiters = waiters

    async def watch(self) -> None:
        """Looks at everybody, again and again, until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.PERIOD_S)
            self._look(loop.time())

    def _look(self, now_s: float) -> None:
        # In a frame of its own: the last one seen would live in that of the loop until the next is seen.
        for waiter in [one for one in self._waiters if one.due_s < now_s]:
            waiter.overdue()

    def __repr__(self) -> str:
        return f"Patience(waiters={len(self._waiters)})"


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

    @property
    def is_alone(self) -> bool:
        """Whether at most one request has begun since the last look and is not over."""
        return len(self._unwatched) <= 1

    async def watch(self) -> None:
        """Runs until cancelled."""
        while True:
            await asyncio.sleep(self.PERIOD_S)
            self._look()

    def _look(self) -> None:
        unwatched, self._unwatched = self._unwatched, {}
        for exchange in unwatched:
            exchange.start_watching()

    def __repr__(self) -> str:
        return f"Departures(unwatched={len(self._unwatched)})"
