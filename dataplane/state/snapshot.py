"""What the data plane knows at one moment: backends with their credentials, and who has which model. Never changed."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from types import MappingProxyType

import msgspec

from dataplane.values import Backend, Candidate
from shared import logs, modelname
from shared.backends import credential_header
from shared.modelname import CanonicalName
from shared.records import BackendRecord, ConfigRecord, DiscoveredRecord, ModelRecord
from shared.sealing import Sealer, SealError

Missing = tuple[str, CanonicalName]

log = logs.get(__name__)


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A consistent state."""

    config_revision: int
    discovered_revision: int
    # In routing order; those whose credential cannot be opened are not there.
    backends: tuple[Backend, ...]
    # Candidates of each model, in routing order.
    candidates: Mapping[CanonicalName, tuple[Candidate, ...]]
    # Each model once, as its first candidate reports it, by name.
    models: tuple[ModelRecord, ...]


def build(
    config: ConfigRecord, discovered: DiscoveredRecord, sealer: Sealer, missing: AbstractSet[Missing] = frozenset()
) -> Snapshot:
    """The snapshot of two records, without the models that a backend was found to miss.

    Models of a backend that is not configured do not count.
    """
    backends = tuple(backend for record in config.backends if (backend := _opened(record, sealer)) is not None)
    offers = {entry.backend: entry.models for entry in discovered.backends}
    candidates: dict[CanonicalName, list[Candidate]] = {}
    for backend in backends:
        for model in offers.get(backend.name, ()):
            if (backend.name, model.canonical) not in missing:
                candidates.setdefault(model.canonical, []).append(Candidate(backend=backend, model=model))
    return Snapshot(
        config_revision=config.revision,
        discovered_revision=discovered.revision,
        backends=backends,
        candidates=MappingProxyType({name: tuple(found) for name, found in candidates.items()}),
        models=tuple(candidates[name][0].model for name in sorted(candidates, key=modelname.display)),
    )


def is_discovered(discovered: DiscoveredRecord) -> bool:
    """Whether discovery has learnt anything: some backend has models, or was polled well and has none."""
    return any(entry.models or not entry.problem for entry in discovered.backends)


def _opened(record: BackendRecord, sealer: Sealer) -> Backend | None:
    credential: tuple[str, str] | None = None
    if record.sealed_token is not None:
        try:
            token = sealer.open(record.name, record.sealed_token)
        except SealError:
            # Without its credential it would only answer 401: leave it out, the others go on.
            log.exception("backend_left_out", backend=record.name)
            return None
        credential = credential_header(header=record.header, scheme=record.scheme, token=token)
    return Backend(name=record.name, url=record.url, priority=record.priority, credential=credential)
