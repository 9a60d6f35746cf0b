"""Empties the outbox into Redis until it has succeeded, and now and then compares everything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from controlplane.errors import NotFoundError, RedisUnavailableError, StoreUnavailableError
from controlplane.metrics import Metrics
from controlplane.publish.publisher import StatePublisher
from controlplane.publish.redis_state import RedisState
from controlplane.store import outbox
from controlplane.store.keys import PostgresKeys
from controlplane.store.tenants import PostgresTenants
from shared import logs

POLL_S = 0.25
BATCH = 100
COUNT_S = 1.0
CONFIG_RECONCILE_S = 5.0
RECONCILE_S = 300.0

_log = logs.get("controlplane.tasks.publish")


class OutboxDrain:
    """Publishes what the outbox holds. Several replicas share the work: each locks the rows that it takes."""

    def __init__(
        self,
        *,
        publisher: StatePublisher,
        poll_s: float = POLL_S,
        on_deferred: Callable[[], None] = lambda: None,
    ) -> None:
        self._publisher = publisher
        self._on_deferred = on_deferred
        self._poll_s = poll_s

    async def run(self) -> None:
        """Publishes until cancelled."""
        while True:
            try:
                done = await self.drain_once()
            except (RedisUnavailableError, StoreUnavailableError) as fault:
                _log.debug("outbox_waits", fault=str(fault))
                self._on_deferred()
                done = 0
            if done < BATCH:
                await asyncio.sleep(self._poll_s)

    async def drain_once(self) -> int:
        """Publishes one batch and says how many rows it had.

        Raises ``RedisUnavailableError``, ``StoreUnavailableError``.
        """
        async with outbox.claimed(BATCH) as changes:
            latest = {(change.kind, change.subject_id): change for change in changes}
            for change in latest.values():
                try:
                    await self._publisher.apply(change)
                except NotFoundError:
                    # Deleted by hand in Postgres: there is nothing to publish any more.
                    _log.warning("outbox_subject_missing", kind=change.kind, subject_id=str(change.subject_id))
        if changes:
            _log.info("outbox_published", changes=len(changes))
        return len(changes)


class Reconciler:
    """Writes again what Redis may have lost or never got: the backends often, keys and tenants seldom.

    All writes are compare-and-set, so that repeating them changes nothing where nothing is wrong.
    """

    def __init__(
        self,
        *,
        publisher: StatePublisher,
        state: RedisState,
        keys: PostgresKeys,
        tenants: PostgresTenants,
        metrics: Metrics,
        config_every_s: float = CONFIG_RECONCILE_S,
        every_s: float = RECONCILE_S,
    ) -> None:
        self._publisher = publisher
        self._state = state
        self._keys = keys
        self._tenants = tenants
        self._metrics = metrics
        self._config_every_s = config_every_s
        self._every_s = every_s

    async def run(self) -> None:
        """Both rounds until cancelled, and how many changes wait."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._count_waiting())
            tasks.create_task(self._run_config())
            tasks.create_task(self._run_everything())

    async def reconcile_everything(self) -> None:
        """Every tenant and key, in batches. Raises ``RedisUnavailableError``, ``StoreUnavailableError``."""
        async for tenants in self._tenants.every():
            await self._state.write_tenants(tenants)
        async for keys in self._keys.every():
            await self._state.write_keys(keys)
        await outbox.forget_published()

    async def _count_waiting(self) -> None:
        # Not with the rounds: what waits for Redis has to be seen while Redis cannot be reached.
        while True:
            try:
                self._metrics.publications_pending(await outbox.pending())
            except StoreUnavailableError as fault:
                _log.debug("waiting_changes_not_counted", fault=str(fault))
            await asyncio.sleep(COUNT_S)

    async def _run_config(self) -> None:
        # Backends of the environment only once: another replica may have others. The last to start wins.
        static = True
        while True:
            try:
                await self._publisher.reconcile_config(static=static)
                static = False
            except (RedisUnavailableError, StoreUnavailableError) as fault:
                _log.debug("config_reconciliation_waits", fault=str(fault))
            await asyncio.sleep(self._config_every_s)

    async def _run_everything(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.reconcile_everything()
            except (RedisUnavailableError, StoreUnavailableError) as fault:
                _log.warning("reconciliation_failed", fault=str(fault))
