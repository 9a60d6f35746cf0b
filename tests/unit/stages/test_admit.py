"""A lease, a refusal, or one more look at the record."""

from __future__ import annotations

import msgspec
import pytest

from dataplane.errors import AuthenticationError, CannotCheckError, ForbiddenError, LimitExceededError, NotReadyError
from dataplane.native import ChatBody
from dataplane.ports import StalePrincipalError
from dataplane.stages.admit import Admit
from dataplane.values import Backend, Candidate, Demand, Grant, Lease, Limits, Principal, RequestId
from shared.modelname import CanonicalName, canonical
from shared.records import ModelPolicyRecord, ModelRecord, UsageEvent
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
        self.most_output = 16
        self.policies: dict[CanonicalName, ModelPolicyRecord] = {}

    async def acquire(self, principal: Principal, request_id: RequestId, demand: Demand, crashed: bytes) -> Lease:
        assert request_id == ARRIVAL.request_id
        self.demand = demand
        self.crashed = msgspec.json.decode(crashed, type=UsageEvent)
        self.calls.append("acquire")
        self._decide(principal)
        return msgspec.structs.replace(LEASE, num_predict=min(demand.num_predict, self.most_output))

    async def check(self, principal: Principal) -> None:
        self.calls.append("check")
        self._decide(principal)

    def remembered(self, api_key: str) -> Principal | None:
        raise AssertionError("admission has no key")

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

    def policy(self, model: CanonicalName) -> ModelPolicyRecord | None:
        return self.policies.get(model)

    def candidates(self, model: CanonicalName) -> tuple[Candidate, ...]:
        backend = Backend(name="one", url="http://127.0.0.1", priority=0)
        return (Candidate(backend=backend, model=ModelRecord(name="llama3", canonical=model, context_length=4096)),)

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
    assert await admit(world)(PRINCIPAL, ARRIVAL, INFERENCE) == (PRINCIPAL, LEASE, INFERENCE)
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
        await admit(world)(principal, ARRIVAL, inference)
    assert world.calls == ["check"]


async def test_revoked_key_learns_nothing_about_models():
    world = World()
    world.refused = True
    with pytest.raises(AuthenticationError):
        await admit(world)(NOTHING, ARRIVAL, INFERENCE)


async def test_nothing_discovered_is_not_forbidden():
    world = World()
    world.is_ready = False
    with pytest.raises(NotReadyError):
        await admit(world)(PRINCIPAL, ARRIVAL, INFERENCE)


async def test_stale_principal_is_read_again_once():
    fresh = at_version(2)
    world = World(live_version=2, published=fresh)
    assert await admit(world)(PRINCIPAL, ARRIVAL, INFERENCE) == (fresh, LEASE, INFERENCE)
    assert world.calls == ["acquire", "refreshed", "acquire"]


async def test_fresh_grant_decides():
    granted = World(live_version=2, published=at_version(2))
    principal, _, _ = await admit(granted)(NOTHING, ARRIVAL, INFERENCE)
    assert principal is granted.published
    withdrawn = World(live_version=2, published=at_version(2, NOTHING))
    with pytest.raises(ForbiddenError):
        await admit(withdrawn)(PRINCIPAL, ARRIVAL, INFERENCE)


async def test_record_that_stays_behind_cannot_be_checked():
    world = World(live_version=2)
    with pytest.raises(CannotCheckError):
        await admit(world)(PRINCIPAL, ARRIVAL, INFERENCE)
    with pytest.raises(CannotCheckError):
        await admit(world).check(PRINCIPAL)


async def test_check_gives_the_principal_that_was_checked():
    assert await admit(World()).check(PRINCIPAL) is PRINCIPAL
    world = World(live_version=2, published=at_version(2))
    assert await admit(world).check(PRINCIPAL) is world.published


async def test_what_is_asked_for_is_the_bound_of_the_request_and_what_a_crash_would_leave():
    world = World()
    await admit(world)(PRINCIPAL, ARRIVAL, INFERENCE)
    # Two bytes, an unknown template and one message, cut to the context.
    assert world.demand == Demand(prompt_bound=4096, prompt_estimate=1, num_predict=16)
    assert (world.crashed.event_id, world.crashed.outcome, world.crashed.status) == (LEASE.lease_id, "crashed", 500)
    assert (world.crashed.model, world.crashed.provenance, world.crashed.day) == ("llama3:latest", "estimated", "")


async def test_smaller_grant_is_what_is_sent_and_said():
    world = World()
    world.most_output = 5
    _, lease, granted = await admit(world)(PRINCIPAL, ARRIVAL, INFERENCE)
    assert isinstance(granted.body, ChatBody)
    assert (lease.num_predict, granted.num_predict, granted.body.options.num_predict) == (5, 5, 5)
    assert granted.clamped
    assert not INFERENCE.clamped


@pytest.mark.parametrize("scope", ["key_limits", "tenant_limits"])
async def test_output_is_lowered_to_what_tokens_per_minute_could_ever_admit(scope: str):
    world = World()
    limits = Limits(rpm=None, tpm=40, concurrent=None)
    principal = msgspec.structs.replace(PRINCIPAL, **{scope: limits})
    inference = msgspec.structs.replace(INFERENCE, prompt_bytes=80, num_predict=1000)
    world.most_output = 1000
    await admit(world)(principal, ARRIVAL, inference)
    assert (world.demand.num_predict, world.demand.prompt_estimate) == (20, 20)


async def test_prompt_that_alone_is_over_tokens_per_minute_is_refused_for_good_once_it_is_checked():
    world = World()
    principal = msgspec.structs.replace(PRINCIPAL, key_limits=Limits(rpm=None, tpm=40, concurrent=None))
    with pytest.raises(LimitExceededError) as refusal:
        await admit(world)(principal, ARRIVAL, msgspec.structs.replace(INFERENCE, prompt_bytes=100))
    assert (refusal.value.limit, refusal.value.exhausted) == ("tokens", True)
    assert world.calls == ["check"]


async def test_the_policy_decides_before_the_bound_and_by_the_models_own_name():
    world = World()
    world.policies[canonical("llama3")] = ModelPolicyRecord(model=canonical("llama3"), num_ctx=512, max_num_predict=4)
    inference = msgspec.structs.replace(INFERENCE, prompt_bytes=100_000)
    _, _, admitted = await admit(world)(PRINCIPAL, ARRIVAL, inference)
    assert (world.demand.prompt_bound, world.demand.num_predict) == (512, 4)
    assert isinstance(admitted.body, ChatBody)
    assert (admitted.body.options.num_ctx, admitted.body.options.num_predict) == (512, 4)
    assert (admitted.model, admitted.canonical, admitted.clamped) == ("LLAMA3", canonical("llama3"), True)
    assert world.crashed.model == "llama3:latest"
