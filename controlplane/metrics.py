"""Every metric of the control plane. A new one is added here.

Labels are bounded: backends are those that operators have configured. Scraping asks nobody: values are those of the
last time that a task looked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector


class Metrics:
    """The metrics of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

    def watch_readiness(self, read: Callable[[], bool]) -> None:
        """Shows whether every readiness check holds; ``read`` is called by another thread."""
        Gauge("gateway_ready", "1 while every readiness check holds", registry=self.registry).set_function(
            lambda: float(read())
        )

    def watch_backends(self, read: Callable[[], Mapping[str, bool]]) -> None:
        """Shows for each backend whether it has answered its last poll; ``read`` is called by another thread."""
        self.registry.register(_Backends(read))

    def __repr__(self) -> str:
        return "Metrics()"


class _Backends(Collector):
    """One series for each backend that is there now: one that was removed leaves none behind."""

    def __init__(self, read: Callable[[], Mapping[str, bool]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """The last poll of each backend."""
        family = GaugeMetricFamily("gateway_backend_polled", "1 where the last poll was answered", labels=("backend",))
        for backend, answered in self._read().items():
            family.add_metric((backend,), float(answered))
        yield family
