"""The tasks of a control plane that keep counters and ledger true to each other, without its gRPC server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from redis.asyncio import Redis as RedisClient

from controlplane.metrics import Metrics
from controlplane.publish.counters import CounterState
from controlplane.publish.fence import Fences
from controlplane.publish.functions import Functions
from controlplane.publish.publisher import StatePublisher
from controlplane.publish.redis_state import RedisState
from controlplane.publish.usage_stream import UsageStreams
from controlplane.store.backends import PostgresBackends, RoutedBackends
from controlplane.store.keys import PostgresKeys
from controlplane.store.policies import PostgresPolicies
from controlplane.store.tenants import PostgresTenants
from controlplane.tasks.drain_usage import UsageDrain
from controlplane.tasks.guard import CounterGuard, Touched
from controlplane.tasks.rebuild import FenceKeeper
from shared.clock import SystemClock
from shared.sealing import Sealer
from tests.integration.hubs import hub_over


class Keepers:
    """Rebuild, drain and guard over one Redis."""

    def __init__(self, client: RedisClient, *, consumer: str = "a", timeout_s: float = 2.0) -> None:
        self.metrics, self.touched, clock = Metrics(), Touched(), SystemClock()
        self.counters = CounterState(client, timeout_s=timeout_s)
        self.fences = Fences(client, timeout_s=timeout_s)
        state = RedisState(client, timeout_s=timeout_s, prompt_log_days=30)
        tenants, keys, sealer = PostgresTenants(), PostgresKeys(), Sealer(bytes(32))
        backends = RoutedBackends(static=(), added=PostgresBackends(), sealer=sealer)
        self.fence_keeper = FenceKeeper(
            fences=self.fences,
            functions=Functions(client, timeout_s=timeout_s),
            state=state,
            counters=self.counters,
            publisher=StatePublisher(
                keys=keys,
                tenants=tenants,
                backends=backends,
                policies=PostgresPolicies(),
                state=state,
                watchers=hub_over(client),
                sealer=sealer,
            ),
            keys=keys,
            tenants=tenants,
            clock=clock,
            metrics=self.metrics,
            poll_s=0.05,
        )
        self.drain = UsageDrain(
            streams=UsageStreams(client, consumer=consumer),
            clock=clock,
            metrics=self.metrics,
            touched=self.touched,
            claim_idle_s=0.2,
            claim_every_s=0.2,
        )
        self.guard = CounterGuard(
            counters=self.counters, touched=self.touched, clock=clock, metrics=self.metrics, every_s=0.1
        )

    @contextlib.asynccontextmanager
    async def running(self, *tasks: Any) -> AsyncIterator[None]:
        """Runs these (rebuild and drain where none are named) and ends them; what one raises is raised."""
        group = [asyncio.create_task(task.run()) for task in tasks or (self.fence_keeper, self.drain)]
        try:
            yield
        finally:
            for task in group:
                task.cancel()
            for result in await asyncio.gather(*group, return_exceptions=True):
                assert isinstance(result, asyncio.CancelledError), f"a task ended: {result!r}"
