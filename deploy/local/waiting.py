"""Waiting for something to become true, with a deadline, while signals stay able to interrupt."""

import os
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from deploy.local.errors import StackError, StopRequestedError
from deploy.local.processes import tail

STEP_S = 0.02
HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)

type Pause = Callable[[float], None]


def wait_until(
    ready: Callable[[], bool], *, timeout_s: float, what: str, pause: Pause = time.sleep, log: Path | None = None
) -> None:
    """Ask `ready` every 20 ms until it says yes. Raises StackError, with the log's end, after `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while not ready():
        if time.monotonic() >= deadline:
            raise StackError(f"{what} did not become ready within {timeout_s:g} s\n{tail(log) if log else ''}".rstrip())
        pause(STEP_S)


class Signals:
    """Turns the signals that ask to stop into an exception raised by `pause`; a context manager for the main thread.

    The end of a child interrupts a pause too, so that it is noticed at once. Once `stopping` was called signals no
    longer raise; each but the first then counts as impatience.
    """

    def __init__(self) -> None:
        self.requests = 0
        self._stopping = False
        self._handled: tuple[signal.Signals, ...] = HANDLED
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def __enter__(self) -> Self:
        if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # somebody wants it to outlive the terminal
            self._handled = tuple(number for number in self._handled if number != signal.SIGHUP)
        for number in self._handled:
            signal.signal(number, self._arrived)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number in self._handled:
            signal.signal(number, signal.SIG_IGN if number != signal.SIGCHLD else signal.SIG_DFL)
        os.close(self._reader)
        os.close(self._writer)

    def pause(self, seconds: float) -> None:
        """Sleep, but no longer than until the next signal. Raises StopRequestedError when one asked to stop."""
        if not self.requests or self._stopping:
            select.select([self._reader], [], [], seconds)
            self._drain()
        if self.requests and not self._stopping:
            raise StopRequestedError("stopping")

    def stopping(self) -> None:
        """From now on signals do not raise any more."""
        self._stopping = True
        self.requests = min(self.requests, 1)

    @property
    def impatient(self) -> bool:
        """Whether somebody asked again to stop."""
        return self.requests > 1

    def _arrived(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature of a handler
        if number != signal.SIGCHLD:
            self.requests += 1
        try:
            os.write(self._writer, b"!")
        except BlockingIOError:
            return  # the pipe is full: the reader wakes up anyway

    def _drain(self) -> None:
        try:
            while os.read(self._reader, 512):
                continue
        except BlockingIOError:
            return
