"""What the gateway's own upstream client sends for a request: asked for at the last step before a connection."""

from __future__ import annotations

from typing import cast

import httpx

from dataplane.upstream.client import Backends, Timeouts
from dataplane.upstream.transport import Body, Transport
from dataplane.values import Backend, Candidate, InferenceRequest, RequestId
from shared.clock import SystemClock
from shared.records import ModelRecord

# Neither what a client could write for it nor what a canonical name looks like.
SPELLING = "Backend.Spelling:Q4_K-M"
URL = "http://backend.invalid:11434"


class Sent(Exception):  # noqa: N818 - no fault: it ends the attempt where the request is complete
    """The request as it would have gone out."""

    def __init__(self, request: httpx.Request, body: bytes) -> None:
        super().__init__()
        self.url = str(request.url)
        self.method = request.method
        self.headers = tuple(request.headers.raw)
        self.body = body


class _Recorder:
    """In place of the transport: every request ends as ``Sent``."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raise Sent(request, cast("Body", request.stream).content)

    async def aclose(self) -> None:
        """Nothing is open."""


class Sender:
    """Builds upstream requests with the real client; to be used inside one event loop."""

    def __init__(self) -> None:
        self._backends = Backends(
            transport=cast("Transport", _Recorder()),
            timeouts=Timeouts(connect_s=1.0, first_record_s=1.0, idle_s=1.0, total_s=10.0),
            max_connections=4,
            clock=SystemClock(),
        )

    async def send(self, inference: InferenceRequest) -> Sent:
        """What would be sent to a backend that spells every model ``SPELLING``."""
        candidate = Candidate(
            backend=Backend(name="backend", url=URL, priority=0),
            model=ModelRecord(name=SPELLING, canonical=inference.canonical),
        )
        try:
            async with self._backends.attempt(candidate, inference, RequestId("req-0")):
                raise RuntimeError("an attempt without a connection has a reply")
        except Sent as sent:
            return sent

    def __repr__(self) -> str:
        return "Sender()"
