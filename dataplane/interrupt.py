"""Ending a request from outside: the client has gone, or its lease is lost.

Both are noticed by somebody else's task. ``Interrupt`` lets them stop the task of the request and say why; inside the
``with`` block the cancellation surfaces as that reason, so that the request path handles errors and nothing else.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from dataplane.errors import GatewayError


class Interrupt:
    """Stops the task that entered it, once, with a reason."""

    __slots__ = ("_reason", "_task")

    def __init__(self) -> None:
        self._task: asyncio.Task[object] | None = None
        self._reason: GatewayError | None = None

    def fire(self, reason: GatewayError) -> None:
        """Cancels the task inside the block; the first reason wins, and after the block nothing happens."""
        if self._task is None or self._reason is not None:
            return
        self._reason = reason
        self._task.cancel()

    @property
    def reason(self) -> GatewayError | None:
        """Why the request was stopped; None while it was not."""
        return self._reason

    def surface(self, kind: type[GatewayError]) -> None:
        """Inside the block, where a cancellation has come up: raises the reason if it is one of this kind.

        The request then goes on with that error as with any other. Somebody else's cancellation stands.
        """
        reason, task = self._reason, self._task
        if task is not None and isinstance(reason, kind) and task.cancelling() == 1:
            task.uncancel()
            self._reason = None
            raise reason from None

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if self._reason is None or task is None:
            return
        task.uncancel()
        if isinstance(error, asyncio.CancelledError) and task.cancelling() == 0:
            raise self._reason from None

    def __repr__(self) -> str:
        return f"Interrupt(reason={self._reason!r})"
