"""OpenTelemetry: where spans and metrics go, and how a trace crosses from one process to another.

Off unless an endpoint is set. Whether a request is traced is decided here alone, by a draw against a configured share:
what a client says of its own trace is kept as a link, so that it neither forces a trace nor chooses its id. Between the
planes the decision travels with the call (W3C Trace Context, https://www.w3.org/TR/trace-context/).
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Protocol

import msgspec
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Link, SpanContext, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shared.redaction import Secret

EXPORT_TIMEOUT_S = 5.0
TRACEPARENT = "traceparent"
NAMESPACE = "neuronetz-gateway"
# What one span may hold: enough for what we write, and nobody else writes into spans.
_MAX_TRACEPARENT_CHARACTERS = 64

_PROPAGATOR = TraceContextTextMapPropagator()


class Settings(Protocol):
    """What both planes are told of telemetry."""

    @property
    def otlp_endpoint(self) -> str | None:
        """Where to export to; nothing is exported without."""
        ...

    @property
    def otlp_headers(self) -> Secret | None:
        """Headers of exports, as ``name=value,name=value``."""
        ...

    @property
    def otlp_service(self) -> str | None:
        """The name of the service, if it is not to be that of the plane."""
        ...

    @property
    def traced_share(self) -> float:
        """Which share of requests is traced, 0 to 1."""
        ...

    @property
    def metrics_interval_ms(self) -> int:
        """Milliseconds between exports of metrics."""
        ...


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where to export to, and as whom."""

    endpoint: str
    headers: Secret | None
    service: str
    instance: str
    version: str
    traced_share: float
    metrics_interval_s: float

    @property
    def header_text(self) -> str | None:
        """The headers as exporters take them."""
        return None if self.headers is None else self.headers.reveal()

    def resource(self) -> Resource:
        """Who we are, with what OTEL_RESOURCE_ATTRIBUTES adds."""
        return Resource.create(
            {
                "service.namespace": NAMESPACE,
                "service.name": self.service,
                "service.instance.id": self.instance,
                "service.version": self.version,
            }
        )


def target_of(settings: Settings, *, plane: str, instance: str, version: str) -> Target | None:
    """Where this process exports to; None when it does not."""
    if settings.otlp_endpoint is None:
        return None
    return Target(
        endpoint=settings.otlp_endpoint,
        headers=settings.otlp_headers,
        service=settings.otlp_service or f"{NAMESPACE}-{plane}",
        instance=instance,
        version=version,
        traced_share=settings.traced_share,
        metrics_interval_s=settings.metrics_interval_ms / 1000,
    )


class Tracing:
    """The tracer of a process and its draw. Make it in the process that uses it; ``close`` sends what is left."""

    def __init__(self, target: Target) -> None:
        exporter = OTLPSpanExporter(endpoint=target.endpoint, headers=target.header_text, timeout=EXPORT_TIMEOUT_S)
        # The draw has been made when the first span of a trace is begun.
        self._provider = TracerProvider(resource=target.resource(), sampler=ALWAYS_ON, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._share = target.traced_share
        self._random = random.SystemRandom() if target.traced_share < 1 else None
        self.tracer: Tracer = self._provider.get_tracer(NAMESPACE, target.version)

    def draws(self) -> bool:
        """Whether the request that begins now is traced."""
        return self._random is None or self._random.random() < self._share

    def close(self) -> None:
        """Sends what has not been sent; blocks for as long as an export may take."""
        self._provider.shutdown()

    def __repr__(self) -> str:
        return f"Tracing(share={self._share})"


def context_of(traceparent: str) -> SpanContext | None:
    """What a ``traceparent`` says, None when it says nothing valid."""
    if len(traceparent) > _MAX_TRACEPARENT_CHARACTERS:
        return None
    said = trace.get_current_span(_PROPAGATOR.extract({TRACEPARENT: traceparent})).get_span_context()
    return said if said.is_valid else None


def links_to(traceparent: str | None) -> tuple[Link, ...]:
    """A link to the trace of somebody whose decisions are not ours."""
    said = None if traceparent is None else context_of(traceparent)
    return () if said is None else (Link(said),)


def metadata() -> tuple[tuple[str, str], ...]:
    """What a call to another process of ours carries of the trace that it belongs to: nothing when there is none."""
    carrier: dict[str, str] = {}
    if trace.get_current_span().is_recording():
        _PROPAGATOR.inject(carrier)
    return tuple((name, value) for name, value in carrier.items() if name == TRACEPARENT)


def attributes(known: Mapping[str, str | int | float | None]) -> dict[str, str | int | float]:
    """Attributes without those that nobody knows."""
    return {name: value for name, value in known.items() if value is not None and value != ""}
