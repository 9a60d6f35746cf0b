"""From a key to a lease and back, with real records, versions and scripts."""

from __future__ import annotations

import pytest

from dataplane.errors import AuthenticationError, CannotCheckError, ForbiddenError, LimitExceededError
from dataplane.quota.link import Link
from shared import keyspace
from shared.records import (
    GrantsRecord,
    KeyState,
    LimitsRecord,
    TenantState,
)
from tests.fakes.published_state import PublishedState
from tests.integration.quota.caller import event
from tests.integration.state.worker import Worker

pytestmark = pytest.mark.redis
ALL = GrantsRecord(allow_all_models=True)


@pytest.fixture
def worker(link: Link) -> Worker:
    return Worker(link)


async def test_revoked_key_is_refused_on_the_next_request(worker: Worker, state: PublishedState):
    api_key = state.key(tenant={"grants": ALL})
    principal, _ = await worker.request(api_key)
    state.record(api_key, tenant_id=principal.tenant_id, version=2, state=KeyState.REVOKED)
    state.live(principal, key=-2)
    with pytest.raises(AuthenticationError):
        await worker.request(api_key)


async def test_suspended_tenant_is_refused_and_served_again_after_it_resumed(worker: Worker, state: PublishedState):
    api_key = state.key(tenant={"grants": ALL})
    principal, _ = await worker.request(api_key)
    state.tenant(principal.tenant_id, version=2, state=TenantState.SUSPENDED)
    state.live(principal, tenant=-2)
    with pytest.raises(AuthenticationError):
        await worker.request(api_key)
    state.tenant(principal.tenant_id, version=3, grants=ALL)
    principal, _ = await worker.request(api_key)
    assert principal.tenant_version == 3


async def test_lowered_limit_holds_on_the_next_request(worker: Worker, state: PublishedState):
    api_key = state.key(tenant={"grants": ALL})
    principal, _ = await worker.request(api_key)
    state.tenant(principal.tenant_id, version=2, grants=ALL, limits=LimitsRecord(concurrent=1))
    with pytest.raises(LimitExceededError):
        await worker.request(api_key)
    assert state.slots(principal) == (1, 1, 1)


async def test_withdrawn_grant_holds_on_the_next_request(worker: Worker, state: PublishedState):
    api_key = state.key(tenant={"grants": ALL})
    principal, _ = await worker.request(api_key)
    state.tenant(principal.tenant_id, version=2)
    with pytest.raises(ForbiddenError):
        await worker.request(api_key)
    state.tenant(principal.tenant_id, version=3, grants=ALL)
    await worker.request(api_key)


async def test_live_version_ahead_of_every_record_cannot_be_checked(worker: Worker, state: PublishedState):
    api_key = state.key(tenant={"grants": ALL})
    principal, _ = await worker.request(api_key)
    state.live(principal, key=9)
    with pytest.raises(CannotCheckError):
        await worker.request(api_key)


async def test_emptied_redis_answers_503_for_known_and_unknown_keys(worker: Worker, state: PublishedState):
    known, unseen = state.key(tenant={"grants": ALL}), state.key(tenant={"grants": ALL})
    await worker.request(known)
    state.client.flushall()
    for api_key in (known, unseen):
        with pytest.raises(CannotCheckError):
            await worker.request(api_key)


async def test_settled_lease_frees_its_slot_for_the_next_request(worker: Worker, state: PublishedState):
    api_key = state.key(tenant={"grants": ALL, "limits": LimitsRecord(concurrent=1)})
    principal, lease = await worker.request(api_key)
    for number in range(3):
        worker.settlements.settle(lease, principal, event(str(number)))
        # The next admission follows the settlement on the same connection: no waiting in between.
        principal, lease = await worker.request(api_key)
    assert state.client.xlen(keyspace.usage(principal.shard)) >= 2
