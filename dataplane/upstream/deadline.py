"""Deadlines of a stream with one timer: the pause that is allowed now, within the life of the whole request.

A timer per record would cost more than the record. Here starting a wait is two comparisons; the timer that is
already running looks, when it fires, whether the deadline has moved since, and then waits for the rest.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class DeadlinePassedError(Exception):
    """The wait took longer than it may."""


class ReadDeadline:
    """Bounds the waits of one task: those inside ``with deadline.until(due_s)``, no other await is interrupted.

    ``usual_s`` is how long its shortest waits usually may take: with it, the first timer is the only one.
    """

    __slots__ = (
        "_cancelling", "_due_s", "_ends_s", "_fired", "_is_waiting", "_loop", "_set_for_s", "_task", "_timer",
        "_usual_s",
    )  # fmt: skip

    def __init__(self, *, total_s: float, usual_s: float | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._ends_s = self._loop.time() + total_s
        self._usual_s = total_s if usual_s is None else usual_s
        self._due_s = 0.0
        self._timer: asyncio.Handle | None = None
        # When it fires. It is not asked: uvloop's for a moment that is over knows no moment.
        self._set_for_s = 0.0
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._is_waiting = False
        self._fired = False

    def after(self, timeout_s: float) -> float:
        """The moment on the loop's clock that is so far away, or the end of the whole if that is sooner.

        Raises ``DeadlinePassedError`` when the whole is over already.
        """
        now_s = self._loop.time()
        if now_s >= self._ends_s:
            raise DeadlinePassedError("total")
        due_s = now_s + timeout_s
        if due_s > self._ends_s:
            return self._ends_s
        return due_s

    def until(self, due_s: float) -> Self:
        """As a context: what is awaited inside ends with ``DeadlinePassedError`` at this moment on the loop's clock."""
        self._due_s = due_s
        if self._timer is None:
            self._begin(due_s)
        elif self._set_for_s > due_s:
            self._rearm(due_s)
        return self

    def __enter__(self) -> None:
        self._is_waiting = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_waiting = False
        if error is not None and isinstance(error, asyncio.CancelledError):
            self._judge()

    def close(self) -> None:
        """Drops the timer."""
        self._is_waiting = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _judge(self) -> None:
        """Tells this deadline's cancellation from somebody else's, which stands also when both came together."""
        if self._fired and self._task is not None:
            self._fired = False
            if self._task.uncancel() <= self._cancelling:
                raise DeadlinePassedError("total" if self._due_s >= self._ends_s else "pause") from None

    def _begin(self, due_s: float) -> None:
        self._task = task = asyncio.current_task()
        self._cancelling = task.cancelling() if task is not None else 0
        self._rearm(min(due_s, self._loop.time() + self._usual_s))

    def _rearm(self, due_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._set_for_s = due_s
        self._timer = self._loop.call_at(due_s, self._fire)

    def _fire(self) -> None:
        self._timer = None
        if self._task is None or not self._is_waiting:
            return
        if self._loop.time() < self._due_s:
            self._rearm(self._due_s)
        elif not self._fired:
            self._fired = True
            self._task.cancel()

    def __repr__(self) -> str:
        return f"ReadDeadline(waiting={self._is_waiting}, fired={self._fired})"
