"""Every metric of the data plane. A new one is added here.

Labels are bounded whatever clients send: tenants are those that exist (``none`` before one is known), models those
that were discovered and granted (``other`` before that), statuses those of ``dataplane.api.problems``. Keys are never
a label.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_DURATION_BUCKETS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class Metrics:
    """Counters of one worker process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "gateway_requests", "Requests answered", ("tenant", "model", "status"), registry=self.registry
        )
        self._tokens = Counter(
            "gateway_tokens", "Tokens charged", ("tenant", "model", "direction"), registry=self.registry
        )
        self._durations = Histogram(
            "gateway_request_duration_seconds",
            "From the first byte of a request to the last of its reply",
            ("tenant", "model"),
            buckets=_DURATION_BUCKETS_S,
            registry=self.registry,
        )
        self._anomalies = Counter(
            "gateway_usage_anomalies", "Counts of a backend that cannot be true", ("kind",), registry=self.registry
        )
        self._gauges: list[Gauge] = []

    def request_ended(self, *, tenant: str, model: str, status: int, duration_s: float) -> None:
        """Counts one request."""
        self._requests.labels(tenant, model, str(status)).inc()
        self._durations.labels(tenant, model).observe(duration_s)

    def tokens_charged(self, *, tenant: str, model: str, prompt: int, completion: int) -> None:
        """Counts the tokens of one request."""
        if prompt:
            self._tokens.labels(tenant, model, "prompt").inc(prompt)
        if completion:
            self._tokens.labels(tenant, model, "completion").inc(completion)

    def anomaly_seen(self, kind: str) -> None:
        """Counts a count that was not believed: ``prompt_count``, ``output_count``."""
        self._anomalies.labels(kind).inc()

    def gauge(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        """Adds a value that is read when somebody looks."""
        gauge = Gauge(name, help_text, registry=self.registry)
        gauge.set_function(read)
        self._gauges.append(gauge)

    def __repr__(self) -> str:
        return "Metrics()"
