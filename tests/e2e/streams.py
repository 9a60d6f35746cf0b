"""Streams that a test leaves open, and how each of them ended."""

from __future__ import annotations

import json
import threading
import time
from typing import Any, Self

import httpx

from tests.canaries import PROMPT
from tests.e2e.harness import bearer, eventually

_MESSAGES = [{"role": "user", "content": PROMPT}]


class OpenStream:
    """One streaming chat in a thread of its own, in the dialect of its path."""

    def __init__(self, url: str, api_key: str, *, path: str = "/api/chat", model: str = "llama3.2") -> None:
        self._request = (f"{url}{path}", bearer(api_key), {"model": model, "messages": _MESSAGES, "stream": True})
        self.status = 0
        self.lines: list[str] = []
        self.ended_at_s: float | None = None
        self.was_broken_off = False
        self._thread = threading.Thread(target=self._read, daemon=True)

    def start(self) -> Self:
        """Returns when the first record is there."""
        self._thread.start()
        eventually(lambda: self.lines or self.ended_at_s, what="the first record")
        assert self.status == 200
        return self

    @property
    def ended(self) -> bool:
        return self.ended_at_s is not None

    @property
    def last(self) -> Any:
        """The last event, decoded; the text itself where it is no JSON (``[DONE]``)."""
        text = self.lines[-1].removeprefix("data: ")
        try:
            return json.loads(text)
        except ValueError:
            return text

    @property
    def was_cut(self) -> bool:
        """Whether it ended with exactly one error event and a connection that was broken off."""
        errors = [line for line in self.lines if '"error"' in line]
        return self.was_broken_off and len(errors) == 1 and "error" in self.last

    def wait(self, timeout_s: float) -> float:
        """The moment of its end on CLOCK_MONOTONIC."""
        self._thread.join(timeout_s)
        assert self.ended_at_s is not None, f"the stream went on for {timeout_s} s"
        return self.ended_at_s

    def _read(self) -> None:
        url, headers, body = self._request
        try:
            with httpx.stream("POST", url, headers=headers, json=body, timeout=60, trust_env=False) as reply:
                self.status = reply.status_code
                for line in reply.iter_lines():
                    if line:
                        self.lines.append(line)
        except httpx.HTTPError:
            self.was_broken_off = True
        finally:
            self.ended_at_s = time.monotonic()


def open_streams(urls: list[str], api_key: str, *, each: int = 1, **fields: str) -> list[OpenStream]:
    """Streams on every replica."""
    return [OpenStream(url, api_key, **fields).start() for url in urls for _ in range(each)]
