"""What the data plane knows at one moment. Never changed.

Backends with their credentials, who has which model, what operators decided about models, and the names under which
clients know them. An alias is a second name of a model; a grant that holds for either name holds for both. The name of
a model that a backend has is never an alias: what is there goes before what was agreed on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from types import MappingProxyType

import msgspec

from dataplane.values import Backend, Candidate, Grant
from shared import logs, modelname
from shared.backends import credential_header
from shared.modelname import CanonicalName
from shared.records import BackendRecord, ConfigRecord, DiscoveredRecord, ModelPolicyRecord, ModelRecord
from shared.sealing import Sealer, SealError

Missing = tuple[str, CanonicalName]

log = logs.get(__name__)


class PublicModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model under one of its names."""

    # As its first candidate reports it; under an alias, named by that.
    record: ModelRecord
    # Its other name: a grant of that is a grant of this.
    other: CanonicalName | None

    def is_granted(self, grant: Grant, name: CanonicalName) -> bool:
        """Whether the model may be used; ``name`` is the one that it is known by here."""
        return grant.allows(name) or (self.other is not None and self.other in grant.models)


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A consistent state."""

    config_revision: int
    discovered_revision: int
    # In routing order; those whose credential cannot be opened are not there.
    backends: tuple[Backend, ...]
    # Candidates of each model, in routing order.
    candidates: Mapping[CanonicalName, tuple[Candidate, ...]]
    # Every name that a client may ask for, in the order of listings.
    public: Mapping[CanonicalName, PublicModel]
    policies: Mapping[CanonicalName, ModelPolicyRecord]


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
    public = _public(candidates, config.models)
    return Snapshot(
        config_revision=config.revision,
        discovered_revision=discovered.revision,
        backends=backends,
        candidates=MappingProxyType({name: tuple(found) for name, found in candidates.items()}),
        public=MappingProxyType({name: public[name] for name in sorted(public, key=modelname.display)}),
        policies=MappingProxyType({policy.model: policy for policy in config.models}),
    )


def is_discovered(discovered: DiscoveredRecord) -> bool:
    """Whether discovery has learnt anything: some backend has models, or was polled well and has none."""
    return any(entry.models or not entry.problem for entry in discovered.backends)


def _public(
    candidates: Mapping[CanonicalName, Sequence[Candidate]], policies: Sequence[ModelPolicyRecord]
) -> dict[CanonicalName, PublicModel]:
    public = {name: PublicModel(record=found[0].model, other=None) for name, found in candidates.items()}
    for policy in policies:
        alias = policy.alias
        if alias is None or policy.model not in candidates:
            continue
        if alias in public:
            log.debug("alias_hidden", alias=alias, model=policy.model)
            continue
        own = candidates[policy.model][0].model
        public[policy.model] = PublicModel(record=own, other=alias)
        named = msgspec.structs.replace(own, name=modelname.display(alias))
        public[alias] = PublicModel(record=named, other=policy.model)
    return public


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
    return Backend(
        name=record.name, url=record.url, priority=record.priority, weight=record.weight, credential=credential
    )
