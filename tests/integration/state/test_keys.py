"""Resolving keys from memory, Redis and the control plane."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dataplane.errors import AuthenticationError, CannotCheckError
from dataplane.quota.link import Link
from dataplane.quota.refused import RefusedVersions
from dataplane.state.keys import RedisKeys
from dataplane.values import Grant, Limits
from shared import apikey, keyspace
from shared.modelname import canonical
from shared.records import GrantsRecord, KeyState, LimitsRecord, TenantState
from shared.redaction import Secret
from tests.fakes.manual_clock import ManualClock
from tests.fakes.published_state import PEPPER, PublishedState
from tests.fakes.redis_link import running_link

pytestmark = pytest.mark.redis
DEFAULTS = Limits(rpm=60, tpm=100_000, concurrent=8)


class Answers:
    """A verifier that answers what it is told; the real one has its own tests."""

    def __init__(self, answer: bool | None = None) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def matches(self, api_key: str) -> bool:
        self.asked.append(api_key)
        await self.gate.wait()
        if self.answer is None:
            raise CannotCheckError("no control plane")
        return self.answer


def keys_of(link: Link, *, verifier: Answers | None = None, clock: ManualClock | None = None) -> RedisKeys:
    return RedisKeys(
        link=link,
        verifier=verifier or Answers(),
        refused=RefusedVersions(),
        pepper=Secret(PEPPER),
        defaults=DEFAULTS,
        ttl_s=60.0,
        clock=clock or ManualClock(),
    )


async def test_key_becomes_a_principal_with_limits_and_grants_inherited(link: Link, state: PublishedState):
    llama = canonical("llama3")
    api_key = state.key(
        tenant={
            "version": 3,
            "limits": LimitsRecord(rpm=120, budget_day=5000),
            "grants": GrantsRecord(allow_all_models=True, allowed_models=(llama,)),
        },
        version=4,
        expires_at_ms=4_000_000_000_000,
        limits=LimitsRecord(concurrent=2),
        grants=GrantsRecord(allow_all_models=False),
        prompt_log_days=7,
    )
    principal = await keys_of(link).principal(api_key)
    assert principal.tenant_limits == Limits(rpm=120, tpm=100_000, concurrent=8, budget_day=5000)
    assert principal.key_limits == Limits(rpm=120, tpm=100_000, concurrent=2, budget_day=5000)
    assert principal.grant == Grant(all_models=False, models=frozenset({llama}))
    assert (principal.key_version, principal.tenant_version, principal.prompt_log_days) == (4, 3, 7)
    assert (principal.key_prefix, principal.expires_at_ms) == (api_key[:12], 4_000_000_000_000)
    assert principal.shard == keyspace.shard_of(principal.tenant_id)


async def test_nothing_is_granted_by_default(link: Link, state: PublishedState):
    principal = await keys_of(link).principal(state.key())
    assert principal.grant == Grant(all_models=False, models=frozenset())


async def test_known_key_is_answered_from_memory_until_its_time_is_over(link: Link, state: PublishedState):
    clock = ManualClock()
    keys, api_key = keys_of(link, clock=clock), state.key()
    first = await keys.principal(api_key)
    state.client.delete(keyspace.key_record(api_key[:12]))
    assert await keys.principal(api_key) is first
    clock.now_s += 61
    with pytest.raises(AuthenticationError, match="unknown"):
        await keys.principal(api_key)


async def test_another_secret_with_a_known_prefix_is_refused(link: Link, state: PublishedState):
    keys, api_key = keys_of(link), state.key()
    await keys.principal(api_key)
    other = apikey.mint(PEPPER.encode())
    body = api_key[:12] + other[12:55]
    forged = body + apikey._checksum(PEPPER.encode(), body)
    assert apikey.is_valid(PEPPER.encode(), forged)
    with pytest.raises(AuthenticationError, match="mismatch"):
        await keys.principal(forged)
    assert (await keys.principal(api_key)).key_prefix == api_key[:12]


async def test_unknown_key_is_refused(link: Link):
    with pytest.raises(AuthenticationError, match="unknown"):
        await keys_of(link).principal(apikey.mint(PEPPER.encode()))


@pytest.mark.parametrize(
    ("fields", "failure"),
    [
        ({"state": KeyState.REVOKED}, "revoked"),
        ({"state": KeyState.SUSPENDED}, "suspended"),
        ({"tenant": {"state": TenantState.SUSPENDED}}, "suspended"),
    ],
    ids=["revoked key", "suspended key", "suspended tenant"],
)
async def test_key_that_is_not_active_is_refused(
    link: Link, state: PublishedState, fields: dict[str, Any], failure: str
):
    with pytest.raises(AuthenticationError, match=failure):
        await keys_of(link).principal(state.key(**fields))


async def test_unknown_key_is_not_refused_while_a_fence_is_missing(link: Link, state: PublishedState):
    state.client.delete(keyspace.fence(keyspace.SHARDS[3]))
    with pytest.raises(CannotCheckError):
        await keys_of(link).principal(apikey.mint(PEPPER.encode()))


async def test_emptied_redis_makes_no_key_unknown(link: Link, state: PublishedState):
    api_key = state.key()
    state.client.flushall()
    with pytest.raises(CannotCheckError):
        await keys_of(link).principal(api_key)


async def test_wrong_secret_is_not_refused_by_stale_data(link: Link, state: PublishedState):
    api_key = state.key(digest="0" * 64)
    state.client.set(keyspace.fence(keyspace.SHARDS[0]), "an-earlier-life:1:1")
    with pytest.raises(CannotCheckError):
        await keys_of(link).principal(api_key)


async def test_redis_that_is_away_refuses_nobody():
    async with running_link("redis://127.0.0.1:1/0", trusted=False) as link:
        with pytest.raises(CannotCheckError):
            await keys_of(link).principal(apikey.mint(PEPPER.encode()))


@pytest.mark.parametrize("kind", ["key", "tenant"])
async def test_unreadable_record_cannot_be_checked(link: Link, state: PublishedState, kind: str):
    api_key = state.key()
    [name] = state.client.keys(f"gateway:{kind}:*")
    state.client.set(name, b"{broken")
    with pytest.raises(CannotCheckError):
        await keys_of(link).principal(api_key)


async def test_missing_tenant_cannot_be_checked(link: Link, state: PublishedState):
    api_key = state.key()
    [name] = state.client.keys("gateway:tenant:*")
    state.client.delete(name)
    with pytest.raises(CannotCheckError):
        await keys_of(link).principal(api_key)


async def test_record_without_a_digest_is_verified_by_the_control_plane(link: Link, state: PublishedState):
    verifier, api_key = Answers(answer=True), state.key(with_digest=False)
    keys = keys_of(link, verifier=verifier)
    assert (await keys.principal(api_key)).key_prefix == api_key[:12]
    assert (await keys.principal(api_key)).key_prefix == api_key[:12]
    assert verifier.asked == [api_key]


async def test_key_that_the_control_plane_denies_is_refused(link: Link, state: PublishedState):
    with pytest.raises(AuthenticationError, match="mismatch"):
        await keys_of(link, verifier=Answers(answer=False)).principal(state.key(with_digest=False))


async def test_key_that_cannot_be_verified_cannot_be_checked(link: Link, state: PublishedState):
    with pytest.raises(CannotCheckError):
        await keys_of(link, verifier=Answers()).principal(state.key(with_digest=False))


async def test_simultaneous_requests_of_a_key_ask_once(link: Link, state: PublishedState):
    verifier, api_key = Answers(answer=True), state.key(with_digest=False)
    verifier.gate.clear()
    keys = keys_of(link, verifier=verifier)
    tasks = [asyncio.create_task(keys.principal(api_key)) for _ in range(50)]
    async with asyncio.timeout(20):
        while not verifier.asked:
            await asyncio.sleep(0.001)
    tasks[0].cancel()  # the one that asks gives up; somebody else asks again
    async with asyncio.timeout(20):
        while len(verifier.asked) < 2:
            await asyncio.sleep(0.001)
    verifier.gate.set()
    principals = await asyncio.gather(*tasks[1:])
    assert len({id(principal) for principal in principals}) == 1
    assert len(verifier.asked) == 2


async def test_failure_is_shared_by_those_who_wait_for_it(link: Link, state: PublishedState):
    keys, api_key = keys_of(link), apikey.mint(PEPPER.encode())
    ends = await asyncio.gather(*(keys.principal(api_key) for _ in range(20)), return_exceptions=True)
    assert {type(end) for end in ends} == {AuthenticationError}
    assert keys.counts.misses == 1


async def test_refreshed_principal_replaces_the_one_in_memory(link: Link, state: PublishedState):
    keys, api_key = keys_of(link), state.key()
    old = await keys.principal(api_key)
    state.tenant(old.tenant_id, version=2, limits=LimitsRecord(concurrent=1))
    fresh = await keys.refreshed(old)
    assert (fresh.tenant_version, fresh.tenant_limits.concurrent) == (2, 1)
    assert await keys.principal(api_key) is fresh


async def test_refreshed_key_that_was_revoked_is_refused(link: Link, state: PublishedState):
    keys, api_key = keys_of(link), state.key()
    old = await keys.principal(api_key)
    state.record(api_key, tenant_id=old.tenant_id, version=2, state=KeyState.REVOKED)
    with pytest.raises(AuthenticationError, match="revoked"):
        await keys.refreshed(old)


async def test_prefix_that_belongs_to_another_key_now_is_unknown(link: Link, state: PublishedState):
    keys, api_key = keys_of(link), state.key()
    old = await keys.principal(api_key)
    state.record(api_key, tenant_id=old.tenant_id, key_id="another")
    with pytest.raises(AuthenticationError, match="unknown"):
        await keys.refreshed(old)


async def test_memory_is_bounded(link: Link, state: PublishedState, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dataplane.state.keys.MAX_CACHED_KEYS", 3)
    keys = keys_of(link)
    for _ in range(10):
        await keys.principal(state.key())
    assert repr(keys) == "RedisKeys(cached=3)"
