"""A hub over one Redis, for parts of the control plane that tell watchers without having any."""

from __future__ import annotations

from redis.asyncio import Redis as RedisClient

from controlplane.metrics import Metrics
from controlplane.publish.change_stream import ChangeStream
from controlplane.publish.published import PublishedState
from controlplane.store.outbox import Revisions
from controlplane.watch.hub import Hub
from controlplane.watch.snapshots import Snapshots
from shared.clock import Clock, SystemClock


def hub_over(client: RedisClient, *, timeout_s: float = 1.0, clock: Clock | None = None, at_a_time: int = 10) -> Hub:
    metrics = Metrics()
    return Hub(
        stream=ChangeStream(client, timeout_s=timeout_s),
        revisions=Revisions(),
        snapshots=Snapshots(
            source=PublishedState(client, timeout_s=timeout_s),
            clock=clock or SystemClock(),
            metrics=metrics,
            at_a_time=at_a_time,
        ),
        metrics=metrics,
    )
