"""A backend that can be struck down and comes back at the same address."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from tests.e2e.harness import MockOllama
from tests.fakes.vanishing import vanished_process


class Victim:
    """A mock Ollama in a process of its own. ``settings`` hold for it and for each of its successors."""

    def __init__(self, name: str, **settings: Any) -> None:
        self.name = name
        self._settings = settings
        self._mock = MockOllama(name)
        self._mock.settings(**settings)
        self.url = self._mock.url
        self._port = urlsplit(self.url).port or 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._mock.stop()

    @contextlib.contextmanager
    def killed(self) -> Iterator[None]:
        """SIGKILL: connections are reset, and new ones are refused."""
        self._kill()
        yield
        self._start_again()

    @contextlib.contextmanager
    def black_holed(self) -> Iterator[None]:
        """Its machine is gone from the network: nothing is answered, neither on open connections nor to new ones."""
        with vanished_process(self._mock.pid, self._port):
            yield

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """SIGSTOP: the kernel goes on accepting connections, and nothing ever comes."""
        os.kill(self._mock.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._mock.pid, signal.SIGCONT)

    @contextlib.contextmanager
    def slow(self, first_record_ms: int) -> Iterator[None]:
        """Every reply begins so much later; lists of models are as quick as ever."""
        fault = {
            "kind": "slow",
            "before_headers_ms": first_record_ms,
            "per_record_ms": self._settings["record_delay_ms"],
        }
        self._mock.script({"match": {"path": "/api/chat"}, "times": None, "fault": fault})
        yield
        self._mock.reset()
        self._mock.settings(**self._settings)

    def _kill(self) -> None:
        os.kill(self._mock.pid, signal.SIGKILL)
        self._mock.stop()

    def _start_again(self) -> None:
        self._mock = MockOllama(self.name, "--port", str(self._port))
        self._mock.settings(**self._settings)

    def __repr__(self) -> str:
        return f"Victim({self.name!r}, {self.url!r})"
