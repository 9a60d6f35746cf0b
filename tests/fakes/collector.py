"""An OpenTelemetry collector for tests: a real OTLP receiver over gRPC that keeps what it was sent."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector(trace_service_pb2_grpc.TraceServiceServicer, metrics_service_pb2_grpc.MetricsServiceServicer):
    """Everything that has arrived. ``spans`` and ``metrics`` come with the name of the service that sent them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spans: list[tuple[str, Span]] = []
        self._metrics: dict[tuple[str, str], Metric] = {}
        self.raw: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.endpoint = ""

    @property
    def spans(self) -> list[tuple[str, Span]]:
        with self._lock:
            return [*self._spans]

    @property
    def metrics(self) -> dict[tuple[str, str], Metric]:
        with self._lock:
            return {**self._metrics}

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - the proto's name
        with self._lock:
            self.raw.append(request.SerializeToString())
            self.headers.append({str(name): str(value) for name, value in context.invocation_metadata()})
            if isinstance(request, trace_service_pb2.ExportTraceServiceRequest):
                for sent in request.resource_spans:
                    service = _service(sent.resource)
                    self._spans += [(service, span) for scope in sent.scope_spans for span in scope.spans]
                return trace_service_pb2.ExportTraceServiceResponse()
            for sent in request.resource_metrics:
                for scope in sent.scope_metrics:
                    self._metrics |= {(_service(sent.resource), metric.name): metric for metric in scope.metrics}
            return metrics_service_pb2.ExportMetricsServiceResponse()


@contextlib.contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that listens; ``endpoint`` is where."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    collector.endpoint = f"http://127.0.0.1:{port}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(1).wait()


def attributes(of: Any) -> dict[str, Any]:
    """Attributes of a span, a data point or a resource as plain values."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in of.attributes}


def _service(resource: Any) -> str:
    return str(attributes(resource)["service.name"])
