"""Talking to the person at the terminal: progress on stderr, results on stdout."""

import sys
import time

from rich.console import Console
from rich.status import Status


class Progress:
    """One line per step with the seconds since the beginning; a spinner in between where stderr is a terminal."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._begun_at = time.monotonic()
        self._status: Status | None = None

    def __repr__(self) -> str:
        return f"Progress(terminal={self._console.is_terminal})"

    def begin(self, text: str) -> None:
        """Say what is being waited for."""
        self.end()
        if self._console.is_terminal:
            self._status = self._console.status(text)
            self._status.start()
        else:
            self._console.print(text, markup=False)

    def step(self, text: str) -> None:
        """Say what has happened."""
        self._console.print(f"{time.monotonic() - self._begun_at:6.1f} s  {text}", markup=False)

    def end(self) -> None:
        """Take the spinner away; lines may still follow."""
        if self._status is not None:
            self._status.stop()
            self._status = None


def complain(text: str) -> None:
    """Print an error."""
    print(f"error: {text}", file=sys.stderr, flush=True)


def say(text: str = "") -> None:
    """Print a line of the result, at once also into a pipe."""
    print(text, flush=True)
