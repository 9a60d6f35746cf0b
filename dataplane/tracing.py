"""Traces of the data plane: a span for the request, and one below it for each thing that is waited for.

Every class here wraps a port and is put in its place only where traces are exported; otherwise nothing of this module
runs. A request that was not drawn has no current span, and then a wrapper only looks for one. Spans say what the audit
says; what was asked, answered, or shown as a credential never reaches one. Backends are not told of traces: what they
are sent is a fixed list of headers.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Protocol

from litestar.types import HTTPScope, Message, Receive, Send
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, get_current_span

from dataplane.api import header, routes
from dataplane.api.front import Clients
from dataplane.api.heads import Fields
from dataplane.metrics import operation_of
from dataplane.ports import Keys, Leases, Reply, Upstreams
from dataplane.values import Arrival, Candidate, Demand, InferenceRequest, Lease, Principal, RequestId
from shared import telemetry
from shared.records import UsageEvent
from shared.telemetry import Tracing

_SERVER_ERROR = 500


class Verifier(Protocol):
    """What checks keys the slow way."""

    async def matches(self, api_key: str) -> bool:
        """Whether the key matches its hash. Raises ``CannotCheckError``."""
        ...


class TracedServer:
    """The application with a span around each request that is drawn."""

    def __init__(self, server: Clients, tracing: Tracing) -> None:
        self._server = server
        self._tracing = tracing

    async def __call__(self, scope: HTTPScope, fields: Fields, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if not self._tracing.draws():
            await self._server(scope, fields, receive, send)
            return
        method, route = _method(scope["method"]), routes.match(scope["method"], scope["raw_path"])
        with self._tracing.tracer.start_as_current_span(
            f"{method} {route.name}",
            kind=SpanKind.SERVER,
            links=telemetry.links_to(_traceparent(fields)),
            attributes={"http.request.method": method, "http.route": route.name},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:

            async def observed(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                    if message["status"] >= _SERVER_ERROR:
                        span.set_status(StatusCode.ERROR)
                await send(message)

            try:
                await self._server(scope, fields, receive, observed)
            except BaseException:
                # The connection is cut: the client has left, or its stream ended with an error event.
                span.set_status(StatusCode.ERROR)
                raise

    def __repr__(self) -> str:
        return f"TracedServer({self._server!r})"


class SpanAttributes:
    """Implements ``ports.Observer``: what the request turned out to be, on its span."""

    def request_ended(
        self, *, arrival: Arrival, principal: Principal | None, event: UsageEvent | None, status: int, duration_s: float
    ) -> None:
        """See ``ports.Observer``; the duration is the span's own."""
        del duration_s
        span = get_current_span()
        if not span.is_recording():
            return
        known: dict[str, str | int | float | None] = {
            "gateway.request_id": arrival.request_id,
            "gateway.status": status,
        }
        if principal is not None:
            known |= {"gateway.tenant": principal.tenant_name, "gateway.key_prefix": principal.key_prefix}
        if event is not None:
            known |= {
                "gateway.outcome": event.outcome,
                "gateway.refusal": event.refusal,
                "gateway.backend": event.backend,
            }
        if event is not None and event.model:
            known |= {
                "gen_ai.operation.name": operation_of(arrival.endpoint),
                "gen_ai.provider.name": "ollama",
                "gen_ai.request.model": event.model,
                "gen_ai.usage.input_tokens": event.prompt_tokens,
                "gen_ai.usage.output_tokens": event.completion_tokens,
                "gateway.ttft_ms": event.ttft_ms,
            }
        span.set_attributes(telemetry.attributes(known))

    def __repr__(self) -> str:
        return "SpanAttributes()"


class TracedKeys:
    """Implements ``ports.Keys``."""

    def __init__(self, keys: Keys, tracer: Tracer) -> None:
        self._keys = keys
        self._tracer = tracer

    def remembered(self, api_key: str) -> Principal | None:
        """See ``ports.Keys``; nothing is waited for."""
        return self._keys.remembered(api_key)

    async def principal(self, api_key: str) -> Principal:
        """See ``ports.Keys``."""
        if not get_current_span().is_recording():
            return await self._keys.principal(api_key)
        with _stage(self._tracer, "authenticate"):
            return await self._keys.principal(api_key)

    async def refreshed(self, principal: Principal) -> Principal:
        """See ``ports.Keys``."""
        if not get_current_span().is_recording():
            return await self._keys.refreshed(principal)
        with _stage(self._tracer, "authenticate again"):
            return await self._keys.refreshed(principal)

    def __repr__(self) -> str:
        return f"TracedKeys({self._keys!r})"


class TracedVerifier:
    """The slow check of a key with a span; the control plane's own is below it."""

    def __init__(self, verifier: Verifier, tracer: Tracer) -> None:
        self._verifier = verifier
        self._tracer = tracer

    async def matches(self, api_key: str) -> bool:
        """Whether the key matches its hash. Raises ``CannotCheckError``."""
        if not get_current_span().is_recording():
            return await self._verifier.matches(api_key)
        with _stage(self._tracer, "verify", kind=SpanKind.CLIENT, attributes={"rpc.system.name": "grpc"}):
            return await self._verifier.matches(api_key)

    def __repr__(self) -> str:
        return f"TracedVerifier({self._verifier!r})"


class TracedLeases:
    """Implements ``ports.Leases``."""

    def __init__(self, leases: Leases, tracer: Tracer) -> None:
        self._leases = leases
        self._tracer = tracer

    async def acquire(self, principal: Principal, request_id: RequestId, demand: Demand, crashed: bytes) -> Lease:
        """See ``ports.Leases``."""
        if not get_current_span().is_recording():
            return await self._leases.acquire(principal, request_id, demand, crashed)
        with _stage(self._tracer, "admit", kind=SpanKind.CLIENT, attributes={"db.system.name": "redis"}):
            return await self._leases.acquire(principal, request_id, demand, crashed)

    async def check(self, principal: Principal) -> None:
        """See ``ports.Leases``."""
        if not get_current_span().is_recording():
            await self._leases.check(principal)
            return
        with _stage(self._tracer, "check", kind=SpanKind.CLIENT, attributes={"db.system.name": "redis"}):
            await self._leases.check(principal)

    def __repr__(self) -> str:
        return f"TracedLeases({self._leases!r})"


class TracedUpstreams:
    """Implements ``ports.Upstreams``: a span per attempt, from the connection to the end of its reply."""

    def __init__(self, upstreams: Upstreams, tracer: Tracer) -> None:
        self._upstreams = upstreams
        self._tracer = tracer
        self.available = upstreams.available
        self.has_time = upstreams.has_time
        self.retry_after_s = upstreams.retry_after_s
        self.in_flight = upstreams.in_flight

    def attempt(
        self,
        candidate: Candidate,
        inference: InferenceRequest,
        request_id: RequestId,
        *,
        tenant: str = "",
        elapsed_s: float = 0.0,
    ) -> AbstractAsyncContextManager[Reply]:
        """See ``ports.Upstreams``."""
        attempt = self._upstreams.attempt(candidate, inference, request_id, tenant=tenant, elapsed_s=elapsed_s)
        if not get_current_span().is_recording():
            return attempt
        span = self._tracer.start_span(
            "upstream",
            kind=SpanKind.CLIENT,
            attributes={
                "gateway.backend": candidate.backend.name,
                "url.path": inference.operation.value,
                "gen_ai.request.model": candidate.model.name,
            },
        )
        return _TracedAttempt(attempt, span)

    def __repr__(self) -> str:
        return f"TracedUpstreams({self._upstreams!r})"


class _TracedAttempt:
    """The context of one attempt, with its span ended in any case."""

    def __init__(self, attempt: AbstractAsyncContextManager[Reply], span: Span) -> None:
        self._attempt = attempt
        self._span = span

    async def __aenter__(self) -> Reply:
        try:
            reply = await self._attempt.__aenter__()
        except BaseException as fault:
            _fail(self._span, fault)
            self._span.end()
            raise
        self._span.add_event("first record")
        return reply

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        try:
            return await self._attempt.__aexit__(kind, error, trace)
        finally:
            if error is not None:
                _fail(self._span, error)
            self._span.end()


def settling(tracer: Tracer) -> Callable[[asyncio.Future[Any]], None]:
    """What ``Settlements`` tells of each settlement that was sent; its span ends when Redis has answered."""

    def sent(future: asyncio.Future[Any]) -> None:
        if not get_current_span().is_recording():
            return
        span = tracer.start_span("settle", kind=SpanKind.CLIENT, attributes={"db.system.name": "redis"})

        def answered(future: asyncio.Future[Any]) -> None:
            if future.cancelled() or future.exception() is not None:
                span.set_status(StatusCode.ERROR)
            span.end()

        future.add_done_callback(answered)

    return sent


@contextlib.contextmanager
def _stage(
    tracer: Tracer, name: str, *, kind: SpanKind = SpanKind.INTERNAL, attributes: Mapping[str, str] | None = None
) -> Iterator[None]:
    """A current span whose failure has the name of the error and none of its text, which may quote a client."""
    with tracer.start_as_current_span(
        name, kind=kind, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield
        except BaseException as error:
            _fail(span, error)
            raise


def _fail(span: Span, error: BaseException) -> None:
    span.set_attribute("error.type", type(error).__name__)
    span.set_status(Status(StatusCode.ERROR))


def _method(method: str) -> str:
    """The method if it is one that somebody knows: clients may write anything."""
    return method if method in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS") else "_OTHER"


def _traceparent(fields: Fields) -> str | None:
    values = fields.get(header.TRACE_PARENT)
    return None if values is None else values[0].decode("latin-1")
