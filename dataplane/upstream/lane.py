"""One backend as this worker sees it: its slots, its breaker, and what every request to it has in common."""

from __future__ import annotations

import asyncio

import httpx

from dataplane.upstream.breaker import Breaker, State
from dataplane.upstream.transport import encoded_head, origin_of
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
        self.origin = origin_of(httpx.URL(backend.url))
        self._heads: dict[Operation, bytes] = {}

    def request(self, operation: Operation, *, request_id: str, content: bytes) -> bytes:
        """All bytes of a request. Raises ``httpx.LocalProtocolError`` for a credential that is no header."""
        head = self._heads.get(operation)
        if head is None:
            head = self._heads[operation] = self._head(operation)
        return b"%bcontent-length: %d\r\nx-request-id: %b\r\n\r\n%b" % (
            head, len(content), request_id.encode(), content,
        )  # fmt: skip

    def _head(self, operation: Operation) -> bytes:
        """What all requests for the operation begin with."""
        url = httpx.URL(self.backend.url + operation.value)
        credential = self.backend.credential
        fields = [
            (b"host", url.netloc),
            (b"content-type", b"application/json"),
            (b"user-agent", USER_AGENT),
            (b"accept", _WHOLE_ACCEPT if operation is Operation.EMBED else _STREAM_ACCEPT),
        ]
        if credential is not None:
            fields.append((credential[0].encode(), credential[1].encode()))
        return encoded_head("POST", url, fields)

    def _changed(self, state: State) -> None:
        level = _log.warning if state is State.OPEN else _log.info
        level("circuit_breaker_changed", backend=self.backend.name, state=state.value)

    def __repr__(self) -> str:
        return f"Lane({self.backend.name!r}, in_flight={self.in_flight}, breaker={self.breaker!r})"
