"""A7.10: changes of keys and tenants race with admission a thousand times; who is not stopped in time is found."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator

import msgspec
import pytest
from redis.asyncio import Redis as RedisClient

from controlplane.core.keys import Key
from controlplane.core.tenants import Tenant
from controlplane.publish import connection
from controlplane.publish.redis_state import RedisState
from dataplane.errors import AuthenticationError, ForbiddenError
from dataplane.quota.link import Link
from shared import apikey, keyspace
from shared.keyspace import KeyId, TenantId
from shared.records import GrantsRecord, KeyState, LimitsRecord, TenantState
from tests.fakes.published_state import PEPPER
from tests.fakes.redis_link import running_link
from tests.integration.state.worker import Worker

pytestmark = pytest.mark.redis
INTERLEAVINGS, AT_ONCE = 1000, 8
CHANGES = ("revoke", "rotate", "suspend key", "suspend tenant", "withdraw grants")
_NOW = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)


@pytest.fixture
async def link(state) -> AsyncIterator[Link]:
    """One that a busy machine does not make deny."""
    async with running_link(state.url, timeout_s=5) as link:
        yield link


@pytest.fixture
async def client(state) -> AsyncIterator[RedisClient]:
    client = connection.connect(state.url, connect_timeout_s=2)
    yield client
    await client.aclose()


class Case:
    """One key of one tenant, one change, and requests before, beside and after it."""

    def __init__(self, worker: Worker, state: RedisState, client: RedisClient, source: random.Random) -> None:
        self._worker = worker
        self._state = state
        self._client = client
        self._source = source
        self._api_key = apikey.mint(PEPPER.encode())
        tenant = TenantId(str(uuid.UUID(int=source.getrandbits(128))))
        self._tenant = Tenant(
            id=tenant, name=tenant, version=1, created_at=_NOW, grants=GrantsRecord(allow_all_models=True),
            limits=LimitsRecord(rpm=1000, tpm=10**9, concurrent=100),
        )  # fmt: skip
        self._key = self._a_key(self._api_key)
        self.change = source.choice(CHANGES)
        # What the requests were told: those asked before the answer to the change, and those asked after it.
        self.before: Counter[str] = Counter()
        self.after: Counter[str] = Counter()
        self.leases_after = 0

    async def run(self) -> None:
        await self._state.write_tenant(self._tenant)
        await self._state.write_key(self._key, digest=apikey.digest(PEPPER.encode(), self._api_key))
        if self._source.random() < 0.5:
            await self._ask(self.before)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._source.randrange(1, 4)):
                tasks.create_task(self._ask(self.before))
            await self._changed()
            held = await self._leases()
            for _ in range(2):
                tasks.create_task(self._ask(self.after))
        self.leases_after = await self._leases() - held

    async def _changed(self) -> None:
        await self._pause()
        match self.change:
            case "revoke" | "suspend key":
                ends = KeyState.REVOKED if self.change == "revoke" else KeyState.SUSPENDED
                await self._state.write_key(msgspec.structs.replace(self._key, version=2, state=ends))
            case "rotate":
                successor = apikey.mint(PEPPER.encode())
                ended = msgspec.structs.replace(self._key, version=2, state=KeyState.REVOKED)
                digests = [apikey.digest(PEPPER.encode(), successor), None]
                await self._state.write_keys([self._a_key(successor), ended], digests=digests)
            case "suspend tenant":
                ended_tenant = msgspec.structs.replace(self._tenant, version=2, state=TenantState.SUSPENDED)
                await self._state.write_tenant(ended_tenant)
            case _:
                await self._state.write_tenant(msgspec.structs.replace(self._tenant, version=2, grants=GrantsRecord()))

    async def _ask(self, told: Counter[str]) -> None:
        await self._pause()
        try:
            await self._worker.request(self._api_key)
            told["admitted"] += 1
        except (AuthenticationError, ForbiddenError) as refusal:
            told[refusal.code] += 1

    async def _pause(self) -> None:
        """Some rounds of the loop, or some time in which Redis answers others."""
        for _ in range(self._source.randrange(4)):
            await asyncio.sleep(0)
        if self._source.random() < 0.3:
            await asyncio.sleep(self._source.uniform(0, 0.003))

    async def _leases(self) -> int:
        shard = keyspace.shard_of(self._tenant.id)
        return int(await self._client.zcard(keyspace.leases(shard, keyspace.key_scope(self._key.id))))

    def _a_key(self, api_key: str) -> Key:
        return Key(
            id=KeyId(str(uuid.UUID(int=self._source.getrandbits(128)))), tenant_id=self._tenant.id,
            tenant=self._tenant.name, prefix=apikey.prefix_of(api_key), name="k", version=1, created_at=_NOW,
        )  # fmt: skip


async def test_no_request_is_admitted_after_the_answer_to_a_change(link: Link, client: RedisClient):
    worker, published = Worker(link), RedisState(client, timeout_s=2, prompt_log_days=30)
    source = random.Random(710)
    cases = [Case(worker, published, client, random.Random(source.random())) for _ in range(INTERLEAVINGS)]
    waiting = iter(cases)

    async def run_some() -> None:
        for case in waiting:
            await case.run()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(run_some())
    late = [case.change for case in cases if case.after["admitted"] or case.leases_after > 0]
    assert late == []
    # Each change met requests that it stopped and requests that it came too late for.
    for change in CHANGES:
        told = sum((case.before for case in cases if case.change == change), Counter())
        assert told["admitted"] > 100
        assert told.total() > told["admitted"]
