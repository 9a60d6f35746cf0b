"""A lease, a refusal, or one more look at the record."""

from __future__ import annotations

import msgspec
import pytest

from dataplane.errors import AuthenticationError, CannotCheckError, ForbiddenError, NotReadyError
from dataplane.ports import StalePrincipalError
from dataplane.stages.admit import Admit
from dataplane.values import Candidate, Grant, Lease, Principal, RequestId
from shared.modelname import CanonicalName, canonical
from shared.records import ModelRecord
from tests.unit.stages.principals import ARRIVAL, INFERENCE, LEASE, PRINCIPAL

NOTHING = msgspec.structs.replace(PRINCIPAL, grant=Grant(all_models=False))


class World:
    """Leases, keys and models: one model is installed, and one version is live."""

    def __init__(self, *, live_version: int = 1, published: Principal = PRINCIPAL) -> None:
        self.live_version = live_version
        self.published = published
        self.refused = False
        self.is_ready = True
        self.calls: list[str] = []

    async def acquire(self, principal: Principal, request_id: RequestId) -> Lease:
        assert request_id == ARRIVAL.request_id
        self.calls.append("acquire")
        self._decide(principal)
        return LEASE

    async def check(self, principal: Principal) -> None:
        self.calls.append("check")
        self._decide(principal)

    async def principal(self, api_key: str) -> Principal:
        raise AssertionError("admission has no key")

    async def refreshed(self, principal: Principal) -> Principal:
        self.calls.append("refreshed")
        return self.published

    def resolve(self, grant: Grant, model: CanonicalName) -> ModelRecord | None:
        if not self.is_ready:
            raise NotReadyError("nothing is discovered")
        installed = model == canonical("llama3")
        return ModelRecord(name="llama3", canonical=model) if installed and grant.allows(model) else None

    def candidates(self, model: CanonicalName) -> tuple[Candidate, ...]:
        raise AssertionError("routing is another stage")

    def listing(self, grant: Grant) -> tuple[ModelRecord, ...]:
        raise AssertionError("listing is no stage")

    def forget(self, backend: str, model: CanonicalName) -> None:
        raise AssertionError("relaying is another stage")

    def _decide(self, principal: Principal) -> None:
        if self.refused:
            raise AuthenticationError("revoked")
        if principal.key_version < self.live_version:
            raise StalePrincipalError


def at_version(version: int, principal: Principal = PRINCIPAL) -> Principal:
    return msgspec.structs.replace(principal, key_version=version)


def admit(world: World) -> Admit:
    return Admit(leases=world, keys=world, models=world)


async def test_granted_model_gets_a_lease():
    world = World()
    assert await admit(world)(PRINCIPAL, ARRIVAL.request_id, INFERENCE) == (PRINCIPAL, LEASE)
    assert world.calls == ["acquire"]


@pytest.mark.parametrize(
    ("principal", "model"),
    [(NOTHING, "llama3"), (PRINCIPAL, "qwen3"), (NOTHING, "qwen3")],
    ids=["not granted", "not installed", "neither"],
)
async def test_model_that_may_not_be_used_takes_no_lease_and_is_checked(principal: Principal, model: str):
    world = World()
    inference = msgspec.structs.replace(INFERENCE, canonical=canonical(model))
    with pytest.raises(ForbiddenError):
        await admit(world)(principal, ARRIVAL.request_id, inference)
    assert world.calls == ["check"]


async def test_revoked_key_learns_nothing_about_models():
    world = World()
    world.refused = True
    with pytest.raises(AuthenticationError):
        await admit(world)(NOTHING, ARRIVAL.request_id, INFERENCE)


async def test_nothing_discovered_is_not_forbidden():
    world = World()
    world.is_ready = False
    with pytest.raises(NotReadyError):
        await admit(world)(PRINCIPAL, ARRIVAL.request_id, INFERENCE)


async def test_stale_principal_is_read_again_once():
    fresh = at_version(2)
    world = World(live_version=2, published=fresh)
    assert await admit(world)(PRINCIPAL, ARRIVAL.request_id, INFERENCE) == (fresh, LEASE)
    assert world.calls == ["acquire", "refreshed", "acquire"]


async def test_fresh_grant_decides():
    granted = World(live_version=2, published=at_version(2))
    principal, _ = await admit(granted)(NOTHING, ARRIVAL.request_id, INFERENCE)
    assert principal is granted.published
    withdrawn = World(live_version=2, published=at_version(2, NOTHING))
    with pytest.raises(ForbiddenError):
        await admit(withdrawn)(PRINCIPAL, ARRIVAL.request_id, INFERENCE)


async def test_record_that_stays_behind_cannot_be_checked():
    world = World(live_version=2)
    with pytest.raises(CannotCheckError):
        await admit(world)(PRINCIPAL, ARRIVAL.request_id, INFERENCE)
    with pytest.raises(CannotCheckError):
        await admit(world).check(PRINCIPAL)


async def test_check_gives_the_principal_that_was_checked():
    assert await admit(World()).check(PRINCIPAL) is PRINCIPAL
    world = World(live_version=2, published=at_version(2))
    assert await admit(world).check(PRINCIPAL) is world.published
