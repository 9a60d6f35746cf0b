"""The snapshot that requests see, for as long as what was discovered is valid.

Only what was discovered expires: by the monotonic clock of this machine, from the time to live that the record still
had when it was read, because the clocks of machines differ.
"""

from __future__ import annotations

from dataplane.errors import NotReadyError
from dataplane.state import snapshot
from dataplane.state.snapshot import Missing, Snapshot
from dataplane.values import Candidate, Grant
from shared import logs
from shared.clock import Clock
from shared.modelname import CanonicalName
from shared.records import ConfigRecord, DiscoveredRecord, ModelPolicyRecord, ModelRecord
from shared.sealing import Sealer

log = logs.get(__name__)


class CurrentModels:
    """Implements ``ports.Models``. Whoever learns of new state hands it over with ``replace``."""

    def __init__(self, *, sealer: Sealer, clock: Clock) -> None:
        self._sealer = sealer
        self._clock = clock
        self._records: tuple[ConfigRecord, DiscoveredRecord] | None = None
        self._snapshot: Snapshot | None = None
        self._valid_until_s = 0.0
        self._seen_s = clock.monotonic()
        # What a backend was found to miss, and when it had been polled last by then (its ``seen_at_ms``).
        self._missing: dict[Missing, int] = {}

    @property
    def is_valid(self) -> bool:
        """Whether there is a snapshot whose models are still valid."""
        return self._snapshot is not None and self._clock.monotonic() < self._valid_until_s

    @property
    def age_s(self) -> float:
        """Seconds since the state was last seen, as it is or anew."""
        return self._clock.monotonic() - self._seen_s

    @property
    def valid_for_s(self) -> float:
        """Seconds for which its models are still valid, 0 when they are not."""
        return max(0.0, self._valid_until_s - self._clock.monotonic()) if self._snapshot is not None else 0.0

    def replace(self, config: ConfigRecord, discovered: DiscoveredRecord, *, valid_for_s: float) -> None:
        """Swaps the whole snapshot; its models are valid for so many seconds from now."""
        self.prolong(valid_for_s=valid_for_s)
        before = self._snapshot
        self._records = (config, discovered)
        for entry in discovered.backends:
            for model in entry.models:
                missing = (entry.backend, model.canonical)
                if not model.missed_polls and self._missing.get(missing, entry.seen_at_ms) < entry.seen_at_ms:
                    del self._missing[missing]
        after = self._rebuild(config, discovered)
        if before is None or _content(before) != _content(after):
            log.info(
                "snapshot_applied",
                config_revision=after.config_revision,
                discovered_revision=after.discovered_revision,
                backends=len(after.backends),
                models=len(after.candidates),
                policies=len(after.policies),
            )

    def prolong(self, *, valid_for_s: float) -> None:
        """The same state was seen again: its models are valid for so many seconds from now."""
        self._seen_s = self._clock.monotonic()
        self._valid_until_s = self._seen_s + valid_for_s

    def resolve(self, grant: Grant, model: CanonicalName) -> ModelRecord | None:
        """See ``ports.Models``."""
        found = self._current().public.get(model)
        return found.record if found is not None and found.is_granted(grant, model) else None

    def policy(self, model: CanonicalName) -> ModelPolicyRecord | None:
        """What operators decided about the model, by its own name."""
        return self._current().policies.get(model)

    def candidates(self, model: CanonicalName) -> tuple[Candidate, ...]:
        """Backends that have the model, in routing order."""
        return self._current().candidates.get(model, ())

    def listing(self, grant: Grant) -> tuple[ModelRecord, ...]:
        """The effective set, by name, aliases among it."""
        public = self._current().public
        return tuple(found.record for name, found in public.items() if found.is_granted(grant, name))

    def forget(self, backend: str, model: CanonicalName) -> None:
        """The backend answered 404 for the model: leave it out until a later poll has found it there again."""
        if self._records is None:
            return
        config, discovered = self._records
        seen_at_ms = next((entry.seen_at_ms for entry in discovered.backends if entry.backend == backend), None)
        if seen_at_ms is None:
            return
        log.warning("model_missed", backend=backend, model=model)
        self._missing[(backend, model)] = seen_at_ms
        self._rebuild(config, discovered)

    def _rebuild(self, config: ConfigRecord, discovered: DiscoveredRecord) -> Snapshot:
        self._snapshot = snapshot.build(config, discovered, self._sealer, self._missing.keys())
        return self._snapshot

    def _current(self) -> Snapshot:
        if self._snapshot is None or self._clock.monotonic() >= self._valid_until_s:
            raise NotReadyError("nothing is discovered")
        return self._snapshot

    def __repr__(self) -> str:
        return f"CurrentModels(valid={self.is_valid})"


def _content(state: Snapshot) -> tuple[object, ...]:
    """What is worth a line in the log when it differs."""
    return state.backends, state.public, state.policies
