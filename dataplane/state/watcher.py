"""Learns of new state by reading Redis every second, and hands it to ``CurrentModels``.

Bytes that are no record leave the last good state in place, as does a Redis that cannot be asked: what was discovered
stays valid until its own time is over, and backends do not expire.
"""

from __future__ import annotations

import asyncio

from dataplane.errors import CannotCheckError
from dataplane.quota.link import Link
from dataplane.state import snapshot
from dataplane.state.models import CurrentModels
from shared import keyspace, logs, records
from shared.lifecycle import Readiness
from shared.records import ConfigRecord, DiscoveredRecord, RecordError

READINESS_CHECK = "models"
INTERVAL_S = 1.0
# While nothing is valid: traffic waits for it.
EAGER_INTERVAL_S = 0.1

_CONFIG = records.decoder(ConfigRecord)
_DISCOVERED = records.decoder(DiscoveredRecord)

log = logs.get(__name__)


class RedisWatcher:
    """Reads ``gateway:config`` and ``gateway:models:discovered``."""

    def __init__(self, *, link: Link, models: CurrentModels, readiness: Readiness) -> None:
        self._link = link
        self._models = models
        self._readiness = readiness
        self._problem = ""
        # The bytes that the current snapshot was made of.
        self._applied: tuple[bytes, bytes] | None = None

    async def run(self) -> None:
        """Looks until it is cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(INTERVAL_S if self._models.is_valid else EAGER_INTERVAL_S)

    async def look(self) -> None:
        """Looks once, and reports whether models are known."""
        problem = await self._apply()
        if problem and problem != self._problem:
            log.warning("state_not_applied", reason=problem)
        self._problem = problem
        self._readiness.report(READINESS_CHECK, holds=self._models.is_valid)

    async def _apply(self) -> str:
        """Applies what Redis holds; gives the reason why not, in our own words."""
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
        if (config, discovered) == self._applied:
            self._models.prolong(valid_for_s=ttl_ms / 1000)
            return ""
        try:
            config_record, discovered_record = records.decode(_CONFIG, config), records.decode(_DISCOVERED, discovered)
        except RecordError:
            return "the published state is unreadable"
        if not snapshot.is_discovered(discovered_record):
            return "no backend has been polled well"
        self._models.replace(config_record, discovered_record, valid_for_s=ttl_ms / 1000)
        self._applied = (config, discovered)
        return ""

    def __repr__(self) -> str:
        return f"RedisWatcher({self._models!r})"
