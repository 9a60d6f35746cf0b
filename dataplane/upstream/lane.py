"""One backend as this worker sees it: its slots, its breaker, and what every request to it has in common."""

from __future__ import annotations

import asyncio

import httpx

from dataplane.upstream.breaker import Breaker, State
from dataplane.values import Backend, Operation
from shared import logs
from shared.clock import Clock

USER_AGENT = b"neuronetz-gateway"
_STREAM_ACCEPT = b"application/x-ndjson"
_WHOLE_ACCEPT = b"application/json"

_log = logs.get(__name__)


class Lane:
    """State of one backend; a backend whose address or credential changes gets a new one."""

    def __init__(self, backend: Backend, *, max_connections: int, clock: Clock) -> None:
        self.backend = backend
        self.breaker = Breaker(clock, self._changed)
        self.slots = asyncio.Semaphore(max_connections)
        self.in_flight = 0
        # Since the worker started, for its metrics.
        self.attempts = 0
        self.failures = 0
        self._urls = {operation: httpx.URL(backend.url + operation.value) for operation in Operation}
        host = self._urls[Operation.CHAT].netloc
        credential = backend.credential
        self._constant = [(b"host", host), (b"content-type", b"application/json"), (b"user-agent", USER_AGENT)]
        if credential is not None:
            self._constant.append((credential[0].encode(), credential[1].encode()))

    def url(self, operation: Operation) -> httpx.URL:
        """Where the operation is asked for."""
        return self._urls[operation]

    def headers(self, operation: Operation, *, request_id: str, content_length: int) -> list[tuple[bytes, bytes]]:
        """All headers of a request; there are no others."""
        accept = _WHOLE_ACCEPT if operation is Operation.EMBED else _STREAM_ACCEPT
        return [
            *self._constant,
            (b"accept", accept),
            (b"content-length", b"%d" % content_length),
            (b"x-request-id", request_id.encode()),
        ]

    def _changed(self, state: State) -> None:
        level = _log.warning if state is State.OPEN else _log.info
        level("circuit_breaker_changed", backend=self.backend.name, state=state.value)

    def __repr__(self) -> str:
        return f"Lane({self.backend.name!r}, in_flight={self.in_flight}, breaker={self.breaker!r})"
