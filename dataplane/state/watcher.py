"""Reads published state from Redis: the way to start without a control plane, and the safety net below the watch.

Every second while nobody pushes, every five while the watch does. Bytes that are no record leave the last good state
in place, as does a Redis that cannot be asked: what was discovered stays valid until its own time is over, and
backends do not expire.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dataplane.errors import CannotCheckError
from dataplane.quota.link import Link
from dataplane.state.models import CurrentModels
from dataplane.state.store import StateRejectedError, StateStore
from shared import keyspace, logs

INTERVAL_S = 1.0
# While nothing is valid: traffic waits for it.
EAGER_INTERVAL_S = 0.1
# While the watch brings everything: every so many intervals, for what it may have missed.
PUSHED_INTERVALS = 5

log = logs.get(__name__)


class RedisWatcher:
    """Reads ``gateway:config`` and ``gateway:models:discovered``; ``pushed`` says whether the watch brings them too."""

    def __init__(
        self, *, link: Link, store: StateStore, models: CurrentModels, pushed: Callable[[], bool] = lambda: False
    ) -> None:
        self._link = link
        self._store = store
        self._models = models
        self._pushed = pushed
        self._problem = ""

    async def run(self) -> None:
        """Looks until it is cancelled."""
        skipped = 0
        while True:
            if self._models.is_valid and self._pushed() and skipped < PUSHED_INTERVALS - 1:
                skipped += 1
                self._store.report()
            else:
                skipped = 0
                await self.look()
            await asyncio.sleep(INTERVAL_S if self._models.is_valid else EAGER_INTERVAL_S)

    async def look(self) -> None:
        """Looks once, and reports whether models are known."""
        problem = await self._apply()
        if problem and problem != self._problem:
            log.warning("state_not_applied", reason=problem)
        self._problem = problem
        self._store.report()

    async def _apply(self) -> str:
        """Takes what Redis holds; gives the reason why it is not good for everything, in our own words."""
        try:
            # The time to live comes last, so that it is never longer than that of the record that was read.
            config, discovered, ttl_ms = await self._link.read(
                ("GET", keyspace.CONFIG),
                ("GET", keyspace.MODELS_DISCOVERED),
                ("PTTL", keyspace.MODELS_DISCOVERED),
            )
        except CannotCheckError as fault:
            return fault.detail
        if config is None:
            return "no backends are published"
        if discovered is None or ttl_ms <= 0:
            return "nothing is discovered" if ttl_ms != -1 else "what was discovered never expires"
        try:
            has_models = self._store.take(config=config, discovered=discovered, valid_for_s=ttl_ms / 1000)
        except StateRejectedError as fault:
            return str(fault)
        return "" if has_models else "no backend has been polled well"

    def __repr__(self) -> str:
        return f"RedisWatcher({self._store!r})"
