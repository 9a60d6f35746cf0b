"""Every metric of the control plane. A new one is added here.

Labels are bounded: backends are those that operators have configured, everything else is a fixed list. Values that
Postgres or Redis would have to be asked for are those of the last time that a task looked; scraping asks nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from controlplane.core.discovery import Poll

_WRITE_BUCKETS_S = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_REBUILD_BUCKETS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """Counters of one process. Every method takes what has just happened."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._drained = Counter("gateway_usage_events_drained", "Usage events recorded", registry=registry)
        self._repeated = Counter(
            "gateway_usage_events_repeated", "Usage events that the ledger had already", registry=registry
        )
        self._buried = Counter("gateway_dead_letters", "Entries of usage streams that are no events", registry=registry)
        self._anonymous = Counter(
            "gateway_anonymous_failures_recorded", "Failed authentications written to the audit log", registry=registry
        )
        self._write_durations = Histogram(
            "gateway_ledger_write_seconds", "Transactions of the ledger", buckets=_WRITE_BUCKETS_S, registry=registry
        )
        self._write_failures = Counter(
            "gateway_ledger_write_failures", "Transactions of the ledger that failed", registry=registry
        )
        self._lag = Gauge(
            "gateway_usage_lag_seconds", "Age of the oldest usage event of the last batch", registry=registry
        )
        self._streams = Gauge(
            "gateway_usage_stream_events", "Usage events of a shard not recorded yet", ("shard",), registry=registry
        )
        self._stream_bytes = Gauge(
            "gateway_usage_stream_bytes", "What they take of Redis' memory", ("shard",), registry=registry
        )
        self._waiting = Gauge("gateway_usage_events_waiting", "Usage events not recorded yet", registry=registry)
        self._waiting_bytes = Gauge("gateway_usage_bytes_waiting", "What they take of Redis' memory", registry=registry)
        self._denying = Gauge("gateway_shards_denying", "Shards that deny because too much waits", registry=registry)
        self._fences = Gauge("gateway_fences_valid", "Shards whose fence is valid", registry=registry)
        self._rebuilt = Counter("gateway_shards_rebuilt", "Shards rebuilt by this process", registry=registry)
        self._rebuild_durations = Histogram(
            "gateway_rebuild_duration_seconds", "Rebuilds", buckets=_REBUILD_BUCKETS_S, registry=registry
        )
        self._fences_dropped = Counter(
            "gateway_fences_dropped", "Fences taken away because a counter had less than the ledger", registry=registry
        )
        self._lowered = Counter(
            "gateway_counters_lowered", "Counters that had more than the ledger and were put right", registry=registry
        )
        self._reaped = Counter(
            "gateway_leases_reaped", "Leases of dead workers that were closed", ["fate"], registry=registry
        )
        self._pending = Gauge("gateway_publications_pending", "Changes that Redis does not have yet", registry=registry)
        self._deferred = Counter(
            "gateway_publications_deferred", "Publications that did not succeed at once", registry=registry
        )
        self._told = Counter("gateway_changes_told", "Changes told to the watchers", ("kind",), registry=registry)
        self._snapshots = Counter("gateway_watch_snapshots_made", "Snapshots made for watchers", registry=registry)
        self._snapshots_sent = Counter("gateway_watch_snapshots_sent", "Snapshots sent to watchers", registry=registry)
        self._resyncs = Counter("gateway_watch_resyncs", "Watchers told to begin anew", registry=registry)
        self._lost = Counter(
            "gateway_watch_workers_lost", "Workers that fell silent or read nothing", registry=registry
        )
        self._rejected = Counter("gateway_watch_rejections", "Revisions that workers rejected", registry=registry)

    def events_recorded(self, *, inserted: int, repeated: int, buried: int) -> None:
        """A batch of usage events is in the ledger."""
        self._drained.inc(inserted)
        self._repeated.inc(repeated)
        self._buried.inc(buried)

    def anonymous_recorded(self, occurrences: int, *, buried: int) -> None:
        """A batch of counted authentication failures is in the audit log."""
        self._anonymous.inc(occurrences)
        self._buried.inc(buried)

    def ledger_written(self, duration_s: float, *, succeeded: bool) -> None:
        """A transaction of the ledger has ended."""
        self._write_durations.observe(duration_s)
        self._write_failures.inc(not succeeded)

    def lag_seen(self, seconds: float) -> None:
        """A batch was read whose oldest event is so old; 0 when nothing waited."""
        self._lag.set(max(0.0, seconds))

    def backlog_measured(self, sizes: Mapping[str, tuple[int, int]], *, denying: int) -> None:
        """The usage streams were measured: by shard, events and bytes."""
        for shard, (events, size_bytes) in sizes.items():
            self._streams.labels(shard).set(events)
            self._stream_bytes.labels(shard).set(size_bytes)
        self._waiting.set(sum(events for events, _ in sizes.values()))
        self._waiting_bytes.set(sum(size_bytes for _, size_bytes in sizes.values()))
        self._denying.set(denying)

    def fences_seen(self, *, valid: int) -> None:
        """The fences of all shards were read."""
        self._fences.set(valid)

    def shards_rebuilt(self, count: int, *, duration_s: float) -> None:
        """A rebuild has ended."""
        self._rebuilt.inc(count)
        self._rebuild_durations.observe(duration_s)

    def fence_dropped(self) -> None:
        """A counter had less than the ledger."""
        self._fences_dropped.inc()

    def counters_lowered(self, count: int) -> None:
        """Counters had more than the ledger and all that waits for it."""
        self._lowered.inc(count)

    def leases_reaped(self, fate: str, count: int) -> None:
        """Expired leases were closed; ``fate`` is one of ``publish.expired.Reaped``."""
        self._reaped.labels(fate).inc(count)

    def publications_pending(self, count: int) -> None:
        """The outbox was counted."""
        self._pending.set(count)

    def publication_deferred(self) -> None:
        """A change could not be published now and is left to the outbox, or still is."""
        self._deferred.inc()

    def change_told(self, kind: str) -> None:
        """A change (key, tenant, config, discovered) was handed to the watchers."""
        self._told.labels(kind).inc()

    def snapshot_made(self) -> None:
        """A snapshot was put together."""
        self._snapshots.inc()

    def snapshot_sent(self) -> None:
        """A watcher was given a snapshot."""
        self._snapshots_sent.inc()

    def watcher_resynced(self) -> None:
        """A watcher was told to begin anew."""
        self._resyncs.inc()

    def worker_lost(self) -> None:
        """A worker fell silent or stopped reading."""
        self._lost.inc()

    def revision_rejected(self) -> None:
        """A worker could not apply a revision."""
        self._rejected.inc()

    def watch_watchers(self, watchers: Callable[[], int], revision: Callable[[], int]) -> None:
        """Shows how many workers watch, and the newest revision; both are called by another thread."""
        Gauge("gateway_watchers", "Workers that watch this process", registry=self.registry).set_function(watchers)
        Gauge("gateway_revision", "Newest revision known", registry=self.registry).set_function(revision)

    def watch_readiness(self, read: Callable[[], bool]) -> None:
        """Shows whether every readiness check holds; ``read`` is called by another thread."""
        Gauge("gateway_ready", "1 while every readiness check holds", registry=self.registry).set_function(
            lambda: float(read())
        )

    def watch_resources(self, tasks: Callable[[], int], connections: Callable[[], int]) -> None:
        """Shows what must not pile up in a process that runs for long; both are called by another thread."""
        Gauge("gateway_tasks", "asyncio tasks of the process", registry=self.registry).set_function(tasks)
        Gauge("gateway_database_connections", "Connections in the pool", registry=self.registry).set_function(
            connections
        )

    def watch_backends(self, read: Callable[[], Mapping[str, Poll]], failures: Callable[[str], int]) -> None:
        """Shows what each backend answered last, and how often it did not; both are called by another thread."""
        self.registry.register(_Backends(read, failures))

    def __repr__(self) -> str:
        return "Metrics()"


class _Backends(Collector):
    """One series for each backend that is there now: one that was removed leaves none behind."""

    def __init__(self, read: Callable[[], Mapping[str, Poll]], failures: Callable[[str], int]) -> None:
        self._read = read
        self._failures = failures

    def collect(self) -> Iterator[Metric]:
        """The last poll of each backend."""
        label = ("backend",)
        polled = GaugeMetricFamily("gateway_backend_polled", "1 where the last poll was answered", labels=label)
        models = GaugeMetricFamily("gateway_backend_models", "Models that the last poll found", labels=label)
        failed = CounterMetricFamily("gateway_backend_poll_failures", "Polls that were not answered", labels=label)
        for backend, poll in self._read().items():
            polled.add_metric((backend,), float(not poll.problem))
            models.add_metric((backend,), len(poll.models or ()))
            failed.add_metric((backend,), self._failures(backend))
        yield from (polled, models, failed)
