"""What the parts of a worker keep count of themselves, under the names that metrics have for it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from dataplane.api.front import Front
from dataplane.api.server import Server
from dataplane.figures import Labels
from dataplane.metrics import Metrics
from dataplane.quota.link import Link
from dataplane.quota.renewal import Renewal
from dataplane.quota.settlements import Settlements
from dataplane.stages.authenticate import Authenticate
from dataplane.stages.relay import Relay
from dataplane.state.models import CurrentModels
from dataplane.state.watch import Watch
from dataplane.upstream.breaker import State
from dataplane.upstream.client import Backends
from shared.lifecycle import Readiness


def of_front(metrics: Metrics, *, front: Front) -> None:
    """What was refused before anybody looked at more than its head."""
    metrics.read(
        "gateway_heads_refused",
        "Requests refused for their head alone, whoever sent them",
        lambda: {(str(status),): count for status, count in front.refused.items()},
        labels=("status",),
        kind="counter",
    )


def of_worker(
    metrics: Metrics, *, server: Server, readiness: Readiness, models: CurrentModels, watch: Watch, capacity: int
) -> None:
    """The worker itself and the state that it has. ``capacity`` is that of the settlement ring."""
    metrics.read("gateway_tasks", "asyncio tasks of the workers", lambda: len(asyncio.all_tasks()))
    metrics.read("gateway_requests_in_flight", "Requests being answered", lambda: len(server.in_flight))
    metrics.read(
        "gateway_unexpected_failures",
        "Requests that ended with an error that nobody has foreseen",
        lambda: server.failed_unexpectedly,
        kind="counter",
    )
    metrics.read(
        "gateway_requests_unchecked",
        "Requests answered 503 because they could not be checked",
        lambda: {(reason,): count for reason, count in server.unchecked.items()},
        labels=("reason",),
        kind="counter",
    )
    metrics.read("gateway_ready", "1 while every readiness check holds", lambda: readiness.ready, merge="min")
    metrics.read("gateway_settlements_capacity", "Settlements that may wait before admission denies", lambda: capacity)
    metrics.read("gateway_watch_current", "1 while the watch is live", lambda: watch.is_current, merge="min")
    metrics.read("gateway_state_revision", "Last revision of the watch", lambda: watch.revision, merge="min")
    metrics.read(
        "gateway_snapshot_age_seconds", "Since the snapshot was last known to hold", lambda: models.age_s, merge="max"
    )
    metrics.read(
        "gateway_snapshot_valid_seconds", "Until the snapshot expires", lambda: models.valid_for_s, merge="min"
    )
    counts = watch.counts
    metrics.read("gateway_watch_streams", "Watches begun", lambda: counts.streams, kind="counter")
    metrics.read("gateway_revisions_applied", "Revisions applied", lambda: counts.applied, kind="counter")
    metrics.read("gateway_revisions_rejected", "Revisions rejected", lambda: counts.rejected, kind="counter")


def of_redis(metrics: Metrics, *, link: Link, renewal: Renewal, settlements: Settlements) -> None:
    """What goes on between the worker and Redis."""
    metrics.read("gateway_redis_trusted", "1 while Redis may be decided on", lambda: link.is_trusted, merge="min")
    metrics.read(
        "gateway_redis_connections", "Connections to Redis made", lambda: link.counts.connections, kind="counter"
    )
    metrics.read(
        "gateway_redis_suspensions", "Calls to Redis that missed their deadline", lambda: link.counts.suspensions,
        kind="counter",
    )  # fmt: skip
    metrics.read("gateway_redis_errors", "Errors that Redis answered", lambda: link.counts.errors, kind="counter")
    metrics.read("gateway_leases_held", "Leases of running requests", lambda: renewal.held)
    metrics.read("gateway_leases_renewed", "Leases renewed", lambda: renewal.counts.renewed, kind="counter")
    metrics.read("gateway_streams_cut", "Requests cut with their lease", lambda: renewal.counts.cut, kind="counter")
    metrics.read("gateway_settlements_waiting", "Settlements that Redis has not taken", lambda: settlements.unsettled)
    counts = settlements.counts
    metrics.read("gateway_settlements", "Settlements that Redis has taken", lambda: counts.acknowledged, kind="counter")
    metrics.read("gateway_settlements_repeated", "Settlements sent again", lambda: counts.repeated, kind="counter")


def of_requests(metrics: Metrics, *, authenticate: Authenticate, relay: Relay, upstreams: Backends) -> None:
    """What becomes of requests on their way."""

    def failures() -> Mapping[Labels, float]:
        return {(reason,): count for reason, count in authenticate.counts.failed.items()}

    def by_backend(what: str) -> Mapping[Labels, float]:
        return {(lane.backend.name,): getattr(lane, what) for lane in upstreams.lanes()}

    def breakers() -> Mapping[Labels, float]:
        return {
            (lane.backend.name, state.value): lane.breaker.state is state
            for lane in upstreams.lanes()
            for state in State
        }

    metrics.read(
        "gateway_authentication_failures", "Requests without an acceptable key", failures,
        labels=("reason",), kind="counter",
    )  # fmt: skip
    metrics.read(
        "gateway_authentication_throttled", "Failures of addresses that have failed too often",
        lambda: authenticate.counts.throttled, kind="counter",
    )  # fmt: skip
    metrics.read(
        "gateway_upstream_connections", "Connections to backends, in use and kept for the next request",
        lambda: {(state,): count for state, count in upstreams.transport.connections.items()}, labels=("state",),
    )  # fmt: skip
    backend = ("backend",)
    metrics.read(
        "gateway_upstream_attempts", "Requests sent to a backend", lambda: by_backend("attempts"),
        labels=backend, kind="counter",
    )  # fmt: skip
    metrics.read(
        "gateway_upstream_failures", "Attempts that gave no whole reply through the backend's fault",
        lambda: by_backend("failures"), labels=backend, kind="counter",
    )  # fmt: skip
    metrics.read(
        "gateway_upstream_in_flight", "Requests open at a backend", lambda: by_backend("in_flight"), labels=backend
    )
    metrics.read(
        "gateway_failovers", "Replies that this backend gave after another had failed",
        lambda: {(name,): count for name, count in relay.failovers.items()}, labels=backend, kind="counter",
    )  # fmt: skip
    metrics.read("gateway_breakers", "Workers whose circuit breaker is so", breakers, labels=("backend", "state"))
