"""What the gateway's own upstream client sends for a request: asked for at the last step before a connection."""

from __future__ import annotations

from typing import Self, cast

from dataplane.upstream.client import Backends, Timeouts
from dataplane.upstream.transport import Origin, Transport
from dataplane.values import Backend, Candidate, InferenceRequest, RequestId
from shared.clock import SystemClock
from shared.records import ModelRecord

# Neither what a client could write for it nor what a canonical name looks like.
SPELLING = "Backend.Spelling:Q4_K-M"
URL = "http://backend.invalid:11434"


class Sent(Exception):  # noqa: N818 - no fault: it ends the attempt where the request is complete
    """The request as it would have gone out."""

    def __init__(self, origin: Origin, request: bytes) -> None:
        super().__init__()
        head, _, self.body = request.partition(b"\r\n\r\n")
        line, *fields = head.split(b"\r\n")
        method, path, _ = line.decode().split(" ")
        self.url = f"{origin[0]}://{origin[1]}:{origin[2]}{path}"
        self.method = method
        self.headers = tuple((name, value) for name, _, value in (field.partition(b": ") for field in fields))


class _Recorder:
    """In place of the transport and of its connection: every request ends as ``Sent``."""

    def reusable(self, origin: Origin) -> Self:
        """A connection, that is this."""
        self._origin = origin
        return self

    def send(self, request: bytes) -> None:
        """Ends the attempt."""
        raise Sent(self._origin, request)

    def abort(self) -> None:
        """Nothing is open."""

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
