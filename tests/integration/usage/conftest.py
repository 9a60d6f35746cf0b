from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis as RedisClient

from controlplane.publish import connection
from controlplane.store import engine
from deploy.local.postgres import Postgres
from deploy.local.redis import Redis
from neuronetz.admin.v1 import key_pb2, limits_pb2, tenant_pb2, usage_pb2_grpc
from shared import keyspace, records
from shared.keyspace import SHARDS, KeyId, Scope, TenantId
from tests.fakes.counted import counter_of, put_counter
from tests.integration.controlplane.conftest import Running, fresh_database, serving, settings_for
from tests.integration.ledger import events


async def eventually[T](look: Callable[[], Awaitable[T]], *, timeout_s: float = 30.0) -> T:
    """Looks until the result is truthy; fails after the deadline."""
    async with asyncio.timeout(timeout_s):
        while not (found := await look()):
            await asyncio.sleep(0.02)
        return found


class Books:
    """A control plane with one tenant and two keys, and hands to fill its ledger and its counters."""

    def __init__(self, running: Running, client: RedisClient) -> None:
        self.running = running
        self.client: Any = client
        self.usage = usage_pb2_grpc.UsageServiceStub(running.channel)
        self.tenant_id = TenantId("")
        self.keys: list[Any] = []
        self._events = 0

    async def open(self) -> None:
        limits = limits_pb2.Limits(budget_day=10_000, budget_month=50_000)
        created = await self.call(
            self.running.tenants.CreateTenant, tenant_pb2.CreateTenantRequest(name="acme", limits=limits)
        )
        self.tenant_id = TenantId(created.tenant.id)
        for name, own in (("first", limits_pb2.Limits(budget_day=2000)), ("second", limits_pb2.Limits())):
            request = key_pb2.CreateKeyRequest(tenant="acme", name=name, limits=own)
            self.keys.append((await self.call(self.running.keys.CreateKey, request)).key)
        await eventually(self._all_fenced)

    async def call(self, method: Any, request: Any, **more: Any) -> Any:
        return await self.running.call(method, request, **more)

    @property
    def shard(self) -> keyspace.Shard:
        return keyspace.shard_of(self.tenant_id)

    @property
    def scopes(self) -> tuple[Scope, Scope]:
        """The tenant's and the first key's."""
        return keyspace.tenant_scope(self.tenant_id), keyspace.key_scope(KeyId(self.keys[0].id))

    async def record(self, count: int = 1, *, key: int = 0, day: dt.date | None = None, **fields: Any) -> None:
        """Usage events through Redis and the drain into the ledger, one second apart, the last one now."""
        now = dt.datetime.now(dt.UTC)
        at = now if day is None else dt.datetime.combine(day, dt.time(12), dt.UTC)
        before = await self.recorded()
        for number in range(count):
            self._events += 1
            moment = at - dt.timedelta(seconds=count - 1 - number)
            event = events.event(
                self._events,
                **{
                    "tenant_id": self.tenant_id,
                    "key_id": self.keys[key].id,
                    "day": f"{at:%Y%m%d}",
                    "created_at_ms": round(moment.timestamp() * 1000),
                    "prompt_tokens": 100,
                    "completion_tokens": 20,
                }
                | fields,
            )
            await self.client.xadd(keyspace.usage(self.shard), {"e": records.encode(event)})
        await eventually(lambda: self._has(before + count))

    async def recorded(self) -> int:
        return int(await self.value("SELECT count(*) FROM gateway.audit_log"))

    async def value(self, query: str, *arguments: object) -> Any:
        async with engine.connection() as held:
            return await held.fetchval(query, *arguments)

    async def count(self, scope: Scope, *, used: int, reserved: int = 0, day: dt.date | None = None) -> None:
        """Sets the counters of a scope for a day, its month and in total, as admission would have."""
        day = day or dt.datetime.now(dt.UTC).date()
        for period in (f"{day:%Y%m%d}", f"{day:%Y%m}", "total"):
            await put_counter(self.client, self.shard, scope, period, used=used, reserved=reserved)

    async def used(self, scope: Scope, period: str) -> int | None:
        counter = await counter_of(self.client, self.shard, scope, period)
        return None if counter is None else counter.used

    async def _has(self, count: int) -> bool:
        return await self.recorded() >= count

    async def _all_fenced(self) -> bool:
        return bool(await self.client.exists(*(keyspace.fence(shard) for shard in SHARDS)) == len(SHARDS))


@pytest.fixture
async def books(postgres_server: Postgres, redis: Redis) -> AsyncIterator[Books]:
    settings = settings_for(await fresh_database(postgres_server), redis.url)
    async with (
        serving(settings) as running,
        connection.connect(redis.url, connect_timeout_s=2.0) as client,
    ):
        books = Books(running, client)
        await books.open()
        yield books
