"""Traces of the control plane: a span per unary call, and one below it for each statement in Postgres.

A call of a data plane that is traced goes on with the trace it belongs to; any other is traced when it is drawn here,
and what its caller says of a trace is only linked. Long streams (the watch, tails) have no span: they would last for
days. Without an endpoint to export to nothing of this module runs.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import Message
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanKind, Status, StatusCode, Tracer, get_current_span

from controlplane.core.roles import Role
from controlplane.rpc import authz
from controlplane.rpc.guarded import Context, Handler
from controlplane.rpc.interceptors import Continuation
from shared import telemetry
from shared.telemetry import TRACEPARENT, Tracing

_MAX_OPERATION_CHARACTERS = 12


class TracingInterceptor(grpc.aio.ServerInterceptor):
    """Traces unary calls. It stands behind the gatekeeper, so that it knows who calls."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Called by gRPC once per call, before the request is read."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler
        said = next((value for name, value in handler_call_details.invocation_metadata if name == TRACEPARENT), None)
        traced = _Traced(
            handler.unary_unary,
            self._tracing,
            method=str(handler_call_details.method).lstrip("/"),
            traceparent=said if isinstance(said, str) else None,
        )
        return grpc.unary_unary_rpc_method_handler(
            traced.serve,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def __repr__(self) -> str:
        return f"TracingInterceptor({self._tracing!r})"


class _Traced:
    def __init__(
        self,
        behaviour: Callable[[Any, Any], Awaitable[Any]],
        tracing: Tracing,
        *,
        method: str,
        traceparent: str | None,
    ) -> None:
        self._behaviour = behaviour
        self._tracing = tracing
        self._method = method
        self._traceparent = traceparent

    async def serve(self, request: Message, context: Context) -> Any:
        caller = authz.CALLER.get()
        parent = None
        if caller.role is Role.DATAPLANE and self._traceparent is not None:
            parent = telemetry.context_of(self._traceparent)
        if parent is None and not self._tracing.draws():
            return await self._behaviour(request, context)
        links = () if parent is not None else telemetry.links_to(self._traceparent)
        with self._tracing.tracer.start_as_current_span(
            self._method,
            context=None if parent is None else trace.set_span_in_context(NonRecordingSpan(parent)),
            kind=SpanKind.SERVER,
            links=links,
            attributes={
                "rpc.system.name": "grpc",
                "rpc.method": self._method,
                "gateway.caller": caller.name,
                "gateway.role": caller.role.value,
            },
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                return await self._behaviour(request, context)
            except BaseException as error:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(Status(StatusCode.ERROR))
                raise


def statements(tracer: Tracer) -> Callable[[str, float, BaseException | None], None]:
    """What the store tells of each statement that has ended, in the context of whoever asked for it.

    Of its text a span has the first word: values are never in it, but nobody has to trust that.
    """

    def ended(query: str, elapsed_s: float, error: BaseException | None) -> None:
        # The span of the call may have ended by now.
        if not get_current_span().get_span_context().is_valid:
            return
        words = query.split(maxsplit=1)
        operation = words[0][:_MAX_OPERATION_CHARACTERS].upper() if words else "?"
        now_ns = time.time_ns()
        span = tracer.start_span(
            f"postgres {operation}",
            kind=SpanKind.CLIENT,
            attributes={"db.system.name": "postgresql", "db.operation.name": operation},
            start_time=now_ns - round(elapsed_s * 1e9),
        )
        if error is not None:
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(Status(StatusCode.ERROR))
        span.end(now_ns)

    return ended
