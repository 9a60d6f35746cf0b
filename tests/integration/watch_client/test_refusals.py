"""What is pushed holds at once: for cached keys, for requests on their way in, and for those in flight."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from dataplane.errors import AuthenticationError, KeyRefusedError
from dataplane.interrupt import Interrupt
from dataplane.quota.link import Link
from dataplane.values import Lease, Principal, RequestId
from shared.records import KeyState
from tests.fakes.published_state import PublishedState
from tests.fakes.state_server import StateServer, Stream, key_change, snapshot, tenant_change
from tests.integration.quota.caller import CRASHED, DEMAND
from tests.integration.watch_client.conftest import Worker, config

pytestmark = pytest.mark.redis


@pytest.fixture
async def worker(link: Link, server: StateServer) -> AsyncIterator[Worker]:
    async with Worker(link, [server.address]).watching() as worker:
        await (await server.stream()).acknowledgement(7)
        yield worker


@pytest.fixture
async def stream(worker: Worker, server: StateServer) -> Stream:
    return await server.stream()


async def principal_of(worker: Worker, state: PublishedState) -> tuple[str, Principal]:
    api_key = state.key()
    return api_key, await worker.keys.principal(api_key)


async def test_revoked_key_ends_its_streams_and_no_others(worker: Worker, stream: Stream, state: PublishedState):
    _, principal = await principal_of(worker, state)
    _, other = await principal_of(worker, state)
    first, second, spared = [await worker.start(one) for one in (principal, principal, other)]
    stream.say(key_change(8, principal.key_id, 2, refused=True))
    assert (await stream.acknowledgement(8)).streams_cut == 2
    for request in (first, second):
        with pytest.raises(KeyRefusedError, match="refused"):
            await request.task
    assert spared.interrupt.reason is None
    assert worker.watch.counts.cut == 2


async def test_suspended_tenant_ends_the_streams_of_all_its_keys(worker: Worker, stream: Stream, state: PublishedState):
    one, two = state.key(), state.key()
    tenant_id = (await worker.keys.principal(one)).tenant_id
    state.record(two, tenant_id=tenant_id)
    worker.keys.forget_tenant(tenant_id)
    requests = [await worker.start(await worker.keys.principal(api_key)) for api_key in (one, two)]
    stream.say(tenant_change(8, tenant_id, 2, refused=True))
    assert (await stream.acknowledgement(8)).streams_cut == 2
    results = await asyncio.gather(*(request.task for request in requests), return_exceptions=True)
    assert [type(result) for result in results] == [KeyRefusedError, KeyRefusedError]
    for api_key in (one, two):
        with pytest.raises(AuthenticationError, match="suspended"):
            await worker.keys.principal(api_key)


async def test_pushed_refusal_holds_although_redis_does_not_know_of_it(
    worker: Worker, stream: Stream, state: PublishedState
):
    api_key, principal = await principal_of(worker, state)
    stream.say(key_change(8, principal.key_id, 2, refused=True))
    await stream.acknowledgement(8)
    with pytest.raises(AuthenticationError, match="revoked"):
        await worker.keys.principal(api_key)
    # A request that was authenticated before.
    with pytest.raises(AuthenticationError, match="revoked"):
        await worker.leases.acquire(principal, RequestId("f" * 32), DEMAND, CRASHED)
    with pytest.raises(AuthenticationError, match="revoked"):
        await worker.leases.check(principal)
    assert state.slots(principal) == (0, 0, 0)


async def test_higher_version_in_redis_ends_a_pushed_refusal(worker: Worker, stream: Stream, state: PublishedState):
    api_key, principal = await principal_of(worker, state)
    stream.say(key_change(8, principal.key_id, 2, refused=True))
    await stream.acknowledgement(8)
    state.record(api_key, tenant_id=principal.tenant_id, version=3)
    assert (await worker.keys.principal(api_key)).key_version == 3


async def test_pushed_resumption_ends_a_pushed_refusal(worker: Worker, stream: Stream, state: PublishedState):
    api_key, principal = await principal_of(worker, state)
    stream.say(key_change(8, principal.key_id, 2, refused=True), key_change(9, principal.key_id, 3))
    await stream.acknowledgement(9)
    assert (await worker.keys.principal(api_key)).key_version == 1


async def test_changed_limit_only_forgets_what_was_cached(worker: Worker, stream: Stream, state: PublishedState):
    api_key, principal = await principal_of(worker, state)
    other_key, _ = await principal_of(worker, state)
    request = await worker.start(principal)
    state.record(api_key, tenant_id=principal.tenant_id, version=2, prompt_log_days=3)
    stream.say(key_change(8, principal.key_id, 2))
    assert (await stream.acknowledgement(8)).streams_cut == 0
    assert (await worker.keys.principal(api_key)).prompt_log_days == 3
    assert request.interrupt.reason is None
    misses = worker.keys.counts.misses
    await worker.keys.principal(other_key)
    assert worker.keys.counts.misses == misses


async def test_request_that_was_admitted_meanwhile_is_ended_as_soon_as_it_is_held(
    worker: Worker, stream: Stream, state: PublishedState
):
    _, principal = await principal_of(worker, state)
    lease = await worker.leases.acquire(principal, RequestId("e" * 32), DEMAND, CRASHED)
    stream.say(key_change(8, principal.key_id, 2, refused=True))
    assert (await stream.acknowledgement(8)).streams_cut == 0
    request = await _held(worker, lease, principal)
    with pytest.raises(KeyRefusedError, match="refused"):
        await request


async def _held(worker: Worker, lease: Lease, principal: Principal) -> asyncio.Task[None]:
    async def run() -> None:
        with Interrupt() as interrupt:
            worker.renewal.hold(lease, principal, interrupt)
            await asyncio.Event().wait()

    return asyncio.create_task(run())


async def test_old_news_end_no_stream(worker: Worker, stream: Stream, state: PublishedState):
    api_key = state.key(version=5)
    request = await worker.start(await worker.keys.principal(api_key))
    key_id = (await worker.keys.principal(api_key)).key_id
    stream.say(key_change(8, key_id, 4, refused=True))
    assert (await stream.acknowledgement(8)).streams_cut == 0
    assert request.interrupt.reason is None


async def test_repeated_news_end_nothing_twice(worker: Worker, stream: Stream, state: PublishedState):
    _, principal = await principal_of(worker, state)
    await worker.start(principal)
    stream.say(key_change(8, principal.key_id, 2, refused=True), key_change(9, principal.key_id, 2, refused=True))
    await stream.acknowledgement(9)
    assert worker.watch.counts.cut == 1


async def test_revocation_that_a_snapshot_skipped_is_found_at_the_next_tick(
    worker: Worker, stream: Stream, state: PublishedState
):
    api_key, principal = await principal_of(worker, state)
    request = await worker.start(principal)
    await worker.renewal.tick()
    state.record(api_key, tenant_id=principal.tenant_id, version=2, state=KeyState.REVOKED)
    state.live(principal, key=-2)
    await worker.renewal.tick()
    assert request.interrupt.reason is None
    stream.say(snapshot(9, config(9)))
    await stream.acknowledgement(9)
    await worker.renewal.tick()
    with pytest.raises(KeyRefusedError, match="refused"):
        await request.task
