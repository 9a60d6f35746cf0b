"""Metrics by OTLP: what a scrape would show, sent every now and then from a thread of its own.

Nothing is counted twice for it: the same families that Prometheus would read become OTLP's data points. Labels become
attributes, empty ones none.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Self

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import Metric as OTLPMetric
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client.metrics_core import Metric

from shared.telemetry import EXPORT_TIMEOUT_S, NAMESPACE, Target

# What a name ends with says what it is measured in.
_UNITS = (
    (("_seconds", ".duration", ".time_to_first_token", ".time_per_output_token"), "s"),
    (("_bytes",), "By"),
    (("_tokens", ".usage"), "{token}"),
)
_CREATED = "_created"


class MetricsPush:
    """Exports inside its ``with`` block, and once more at its end. ``read`` is called by a thread of its own."""

    def __init__(self, target: Target, read: Callable[[], Iterable[Metric]]) -> None:
        self._exporter = OTLPMetricExporter(
            endpoint=target.endpoint, headers=target.header_text, timeout=EXPORT_TIMEOUT_S
        )
        self._resource = target.resource()
        self._interval_s = target.metrics_interval_s
        self._read = read
        self._started_ns = time.time_ns()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="otlp-metrics", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._exporter.shutdown()

    def _run(self) -> None:
        while not self._over.wait(self._interval_s):
            self._export()
        self._export()

    def _export(self) -> None:
        data = data_of(self._read(), self._resource, started_ns=self._started_ns, now_ns=time.time_ns())
        # It reports failures by itself and never raises; what is cumulative is made good by the next export.
        self._exporter.export(data, timeout_millis=EXPORT_TIMEOUT_S * 1000)

    def __repr__(self) -> str:
        return f"MetricsPush(interval_s={self._interval_s})"


def data_of(families: Iterable[Metric], resource: Resource, *, started_ns: int, now_ns: int) -> MetricsData:
    """Families as OTLP has them."""
    metrics = [_metric(family, started_ns, now_ns) for family in families]
    scope = ScopeMetrics(scope=InstrumentationScope(NAMESPACE), metrics=metrics, schema_url="")
    return MetricsData(resource_metrics=[ResourceMetrics(resource=resource, scope_metrics=[scope], schema_url="")])


def _metric(family: Metric, started_ns: int, now_ns: int) -> OTLPMetric:
    data: Histogram | Sum | Gauge
    if family.type == "histogram":
        points = [_histogram_point(*series, started_ns, now_ns) for series in _histograms(family)]
        data = Histogram(data_points=points, aggregation_temporality=AggregationTemporality.CUMULATIVE)
    else:
        numbers = [
            NumberDataPoint(_attributes(sample.labels), started_ns, now_ns, sample.value)
            for sample in family.samples
            if not sample.name.endswith(_CREATED)
        ]
        if family.type == "counter":
            data = Sum(numbers, AggregationTemporality.CUMULATIVE, is_monotonic=True)
        else:
            data = Gauge(numbers)
    unit = next((unit for ends, unit in _UNITS if family.name.endswith(ends)), "")
    return OTLPMetric(name=family.name, description=family.documentation, unit=unit, data=data)


def _histograms(family: Metric) -> Iterable[tuple[dict[str, str], dict[str, float], float]]:
    """Of each series: its attributes, the cumulative count at each upper end, and the sum."""
    buckets: defaultdict[tuple[tuple[str, str], ...], dict[str, float]] = defaultdict(dict)
    sums: dict[tuple[tuple[str, str], ...], float] = {}
    for sample in family.samples:
        labels = tuple((name, value) for name, value in sample.labels.items() if name != "le")
        if sample.name.endswith("_bucket"):
            buckets[labels][sample.labels["le"]] = sample.value
        elif sample.name.endswith("_sum"):
            sums[labels] = sample.value
    return [(_attributes(dict(labels)), ends, sums[labels]) for labels, ends in buckets.items()]


def _histogram_point(
    attributes: dict[str, str], ends: Mapping[str, float], total: float, started_ns: int, now_ns: int
) -> HistogramDataPoint:
    counts, before = [], 0
    for count in ends.values():
        counts.append(int(count) - before)
        before = int(count)
    return HistogramDataPoint(
        attributes=attributes,
        start_time_unix_nano=started_ns,
        time_unix_nano=now_ns,
        count=before,
        sum=total,
        bucket_counts=counts,
        explicit_bounds=[float(end) for end in ends if end != "+Inf"],
        # Not known, and left out where the point is encoded.
        min=None,  # type: ignore[arg-type] # optional in OTLP
        max=None,  # type: ignore[arg-type] # likewise
    )


def _attributes(labels: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in labels.items() if value}
