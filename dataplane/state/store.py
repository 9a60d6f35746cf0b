"""The newest published state that this worker has learnt of, from whichever source, and the way of it to requests.

The watch and Redis tell the same things at different times: revisions decide which is newer, and what is older than
what is there changes nothing. Each change makes a whole new snapshot.
"""

from __future__ import annotations

from dataplane.state import snapshot
from dataplane.state.models import CurrentModels
from shared import records
from shared.clock import Clock
from shared.lifecycle import Readiness
from shared.records import ConfigRecord, DiscoveredRecord, RecordError

READINESS_CHECK = "models"

_CONFIG = records.decoder(ConfigRecord)
_DISCOVERED = records.decoder(DiscoveredRecord)


class StateRejectedError(Exception):
    """Published state that cannot be used; says why in our own words. Nothing of it was taken."""


class StateStore:
    """Takes records as bytes, keeps the newest, and hands them to ``CurrentModels`` together."""

    def __init__(self, *, models: CurrentModels, readiness: Readiness, clock: Clock) -> None:
        self._models = models
        self._readiness = readiness
        self._clock = clock
        self._config: tuple[bytes, ConfigRecord] | None = None
        self._discovered: tuple[bytes, DiscoveredRecord] | None = None
        self._valid_until_s = 0.0

    def take(self, *, config: bytes = b"", discovered: bytes = b"", valid_for_s: float = 0.0) -> bool:
        """Takes what is newer than what is there; empty bytes say nothing.

        ``valid_for_s`` is how long the discovered models are valid from now. False when they tell nothing, because no
        backend has been polled well. Raises ``StateRejectedError``.
        """
        try:
            new_config = self._newer_config(config)
            offered = self._decoded(discovered)
        except RecordError:
            raise StateRejectedError("the published state is unreadable") from None
        has_models = offered is None or snapshot.is_discovered(offered[1])
        changed = new_config is not None
        if new_config is not None:
            self._config = new_config
        if offered is not None and has_models:
            changed |= self._take_discovered(offered, valid_for_s)
        if changed:
            self._swap()
        self.report()
        return has_models

    def report(self) -> None:
        """Says whether models are known and valid now."""
        self._readiness.report(READINESS_CHECK, holds=self._models.is_valid)

    def _newer_config(self, raw: bytes) -> tuple[bytes, ConfigRecord] | None:
        if not raw or (self._config is not None and raw == self._config[0]):
            return None
        record = records.decode(_CONFIG, raw)
        return None if self._config is not None and record.revision <= self._config[1].revision else (raw, record)

    def _decoded(self, raw: bytes) -> tuple[bytes, DiscoveredRecord] | None:
        if not raw:
            return None
        if self._discovered is not None and raw == self._discovered[0]:
            return self._discovered
        return raw, records.decode(_DISCOVERED, raw)

    def _take_discovered(self, offered: tuple[bytes, DiscoveredRecord], valid_for_s: float) -> bool:
        """Whether there is something new; the same revision seen again is valid for longer, or shorter."""
        known = -1 if self._discovered is None else self._discovered[1].revision
        if offered[1].revision < known:
            return False
        self._valid_until_s = self._clock.monotonic() + valid_for_s
        self._models.prolong(valid_for_s=valid_for_s)
        if offered[1].revision == known:
            return False
        self._discovered = offered
        return True

    def _swap(self) -> None:
        if self._config is None or self._discovered is None:
            return
        valid_for_s = self._valid_until_s - self._clock.monotonic()
        self._models.replace(self._config[1], self._discovered[1], valid_for_s=valid_for_s)

    def __repr__(self) -> str:
        return f"StateStore({self._models!r})"
