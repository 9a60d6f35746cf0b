"""One attempt at one backend: the request in the backend's own spelling, and its reply from the first valid record on.

``Backends`` implements ``ports.Upstreams``. Until the first record every fault is an ``AttemptError`` and the next
candidate may be tried; afterwards the reply raises ``StreamBrokenError`` or ``UpstreamTimeoutError``.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

import httpx
import msgspec

from dataplane.native import Body, EmbedBody
from dataplane.ports import AttemptError, Reply
from dataplane.upstream import refusals
from dataplane.upstream.connection import Headers
from dataplane.upstream.deadline import ReadDeadline
from dataplane.upstream.faults import Blame, ReplyError
from dataplane.upstream.lane import Lane
from dataplane.upstream.reply import MAX_EMBED_REPLY_BYTES, StreamReply, WholeReply, decode_embed_reply
from dataplane.upstream.source import Source
from dataplane.upstream.transport import Transport
from dataplane.values import Candidate, InferenceRequest, Operation, RequestId
from shared import logs
from shared.clock import Clock

_OK = 200
_IDENTITY = b"identity"
_NDJSON = b"application/x-ndjson"
_JSON = b"application/json"
_MAX_LOGGED_CHARACTERS = 200
# With less of the total no backend would answer; and a deadline may pass some milliseconds before the clock says so.
LEAST_TIME_S = 0.1

_encode = msgspec.json.Encoder().encode
_log = logs.get(__name__)


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """How long an attempt may wait, in seconds. A slot is waited for as long as a connection."""

    connect_s: float
    first_record_s: float
    idle_s: float
    total_s: float


class Backends:
    """All backends of this worker. ``max_connections`` is per backend."""

    def __init__(self, *, transport: Transport, timeouts: Timeouts, max_connections: int, clock: Clock) -> None:
        self.timeouts = timeouts
        self.transport = transport
        self._max_connections = max_connections
        self._clock = clock
        self._lanes: dict[str, Lane] = {}

    def attempt(
        self,
        candidate: Candidate,
        inference: InferenceRequest,
        request_id: RequestId,
        *,
        tenant: str = "",
        elapsed_s: float = 0.0,
    ) -> Attempt:
        """One attempt, to be entered; see ``ports.Upstreams``."""
        return Attempt(self, self._lane(candidate), candidate, inference, request_id, tenant, elapsed_s)

    def available(self, candidate: Candidate, *, tenant: str = "") -> bool:
        """Whether the backend's circuit breaker lets a request of this tenant through now."""
        return self._lane(candidate).breaker.allows(tenant)

    def has_time(self, elapsed_s: float) -> bool:
        """Whether so much is left of a request's total time that another attempt makes sense."""
        return self.timeouts.total_s - elapsed_s >= LEAST_TIME_S

    def retry_after_s(self, candidate: Candidate) -> int:
        """Whole seconds until the backend's circuit breaker may let a request through, at least 1."""
        return self._lane(candidate).breaker.retry_after_s()

    def in_flight(self, backend: str) -> int:
        """Requests that this worker has open at the backend, waiting ones included."""
        lane = self._lanes.get(backend)
        return 0 if lane is None else lane.in_flight

    def lanes(self) -> tuple[Lane, ...]:
        """The backends that requests have been sent to, as this worker sees them."""
        return tuple(self._lanes.values())

    async def aclose(self) -> None:
        """Closes all connections."""
        await self.transport.aclose()

    def _lane(self, candidate: Candidate) -> Lane:
        backend = candidate.backend
        lane = self._lanes.get(backend.name)
        if lane is None or (lane.backend is not backend and lane.backend != backend):
            lane = Lane(backend, max_connections=self._max_connections, clock=self._clock)
            self._lanes[backend.name] = lane
        return lane

    def __repr__(self) -> str:
        return f"Backends({list(self._lanes.values())})"


class Attempt:
    """The context of one attempt: holds the slot, the deadline and the connection, and reports to the breaker."""

    __slots__ = (
        "_backends", "_candidate", "_deadline", "_given", "_has_slot", "_inference", "_lane", "_reply", "_request_id",
        "_source", "_tenant",
    )  # fmt: skip

    def __init__(
        self,
        backends: Backends,
        lane: Lane,
        candidate: Candidate,
        inference: InferenceRequest,
        request_id: RequestId,
        tenant: str,
        elapsed_s: float,
    ) -> None:
        self._backends = backends
        self._lane = lane
        self._candidate = candidate
        self._inference = inference
        self._request_id = request_id
        self._tenant = tenant
        timeouts = backends.timeouts
        self._deadline = ReadDeadline(total_s=timeouts.total_s - elapsed_s, usual_s=timeouts.idle_s)
        self._source = Source(backends.transport, lane.origin, self._deadline)
        self._given: int | None = None
        self._has_slot = False
        self._reply: StreamReply | WholeReply | None = None

    async def __aenter__(self) -> Reply:
        """Returns when the first valid record is there. Raises ``AttemptError``."""
        self._given = self._lane.breaker.enter(self._tenant)
        if self._given is None:
            raise AttemptError("the circuit breaker is open")
        self._lane.in_flight += 1
        self._lane.attempts += 1
        try:
            self._reply = await self._ask()
        except AttemptError:
            self._leave(Blame.NONE)
            raise
        except ReplyError as fault:
            self._lane.failures += 1
            self._leave(fault.blame)
            raise AttemptError(fault.detail, timed_out=fault.timed_out) from fault
        except BaseException:
            self._leave(Blame.NONE)
            raise
        return self._reply

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the connection at once, or gives it back when the reply has come to its proper end."""
        reply = self._reply
        if reply is None:
            return
        self._lane.failures += reply.fault is not None
        blame: Blame | None = Blame.NONE if reply.fault is None else reply.fault.blame
        try:
            if reply.done:
                blame = None
                if error is None and not reply.has_more:
                    await self._source.ends()
        finally:
            self._leave(blame)

    def _leave(self, blame: Blame | None) -> None:
        """Gives everything back, once."""
        given, self._given = self._given, None
        if given is None:
            return
        self._deadline.close()
        self._lane.in_flight -= 1
        if blame is None:
            self._lane.breaker.succeeded(given)
        else:
            self._lane.breaker.failed(given, blame, self._tenant)
        self._source.close()
        if self._has_slot:
            self._lane.slots.release()

    async def _ask(self) -> StreamReply | WholeReply:
        timeouts, source = self._backends.timeouts, self._source
        due_s = source.after(timeouts.first_record_s)
        try:
            request = self._request()
        except httpx.LocalProtocolError as fault:
            raise ReplyError(f"no request: {fault}") from fault
        if self._lane.slots.locked():
            await self._wait_for_slot(timeouts.connect_s)
        else:
            await self._lane.slots.acquire()
        self._has_slot = True
        status, headers = await source.head(request, due_s)
        if status != _OK:
            raise await self._refused(status, due_s)
        _check(headers, _JSON if self._inference.operation is Operation.EMBED else _NDJSON)
        name = self._candidate.backend.name
        body = self._inference.body
        if type(body) is EmbedBody:
            document = decode_embed_reply(
                await source.whole(max_bytes=MAX_EMBED_REPLY_BYTES, due_s=due_s), inputs=len(body.input)
            )
            return WholeReply(backend=name, document=document)
        reply = StreamReply(
            backend=name,
            source=source,
            is_chat=self._inference.operation is Operation.CHAT,
            idle_timeout_s=timeouts.idle_s,
        )
        await reply.first(due_s)
        return reply

    async def _wait_for_slot(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._lane.slots.acquire()
        except TimeoutError as passed:
            raise ReplyError("no free connection", blame=Blame.NONE) from passed

    def _request(self) -> bytes:
        content = _encode(_upstream_body(self._inference.body, self._candidate.model.name))
        return self._lane.request(self._inference.operation, request_id=self._request_id, content=content)

    async def _refused(self, status: int, due_s: float) -> Exception:
        try:
            body = await self._source.whole(max_bytes=refusals.MAX_ERROR_BYTES, due_s=due_s)
        except ReplyError:
            body = b""
        _log.info(
            "upstream_refused",
            request_id=self._request_id,
            backend=self._candidate.backend.name,
            status=status,
            text=refusals.error_text(body)[:_MAX_LOGGED_CHARACTERS],
        )
        return refusals.judge(status, body)

    def __repr__(self) -> str:
        return f"Attempt({self._candidate.backend.name!r}, reply={self._reply!r})"


def _check(headers: Headers, expected: bytes) -> None:
    """Raises ``ReplyError`` for a reply of another content type, or encoded."""
    kinds = 0
    for name, value in headers:
        if name == b"content-type":
            kinds += 1
            if value != expected and value.partition(b";")[0].strip().lower() != expected:
                raise ReplyError("a reply of another content type")
        elif name == b"content-encoding" and value.strip().lower() not in (b"", _IDENTITY):
            raise ReplyError("a reply in a content encoding")
    if kinds != 1:
        raise ReplyError("a reply of another content type")


def _upstream_body(body: Body, model: str) -> Body:
    """The body in the backend's spelling of the model; text is always streamed."""
    if type(body) is EmbedBody:
        return msgspec.structs.replace(body, model=model)
    return msgspec.structs.replace(body, model=model, stream=True)
