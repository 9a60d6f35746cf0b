"""Requests as the admission scripts leave them in Redis: leases with reservations, charges with their usage events.

The scripts here do what those of the data plane do to leases, counters and streams, and nothing else: no limits.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import random
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

from redis.asyncio import Redis as RedisClient
from redis.exceptions import RedisError

from controlplane.core.counters import CounterName, Owner, warm_periods
from controlplane.publish.fence import Fences
from controlplane.store import counters as ledger
from controlplane.store import engine
from shared import keyspace, layout, records
from shared.keyspace import KeyId, LeaseId, TenantId, shard_of
from shared.layout import Counter
from tests.fakes.counted import counter_of
from tests.integration.ledger import events

_FENCED = f"""#!lua
{layout.included("counters").decode()}
{layout.included("leases").decode()}
local fence = redis.call('GET', KEYS[1])
if not fence or string.sub(fence, 1, #ARGV[1]) ~= ARGV[1] then return 'unfenced' end
"""
# KEYS: fence, lease, expiry, leases of key and tenant, counters of both.
# ARGV: incarnation, id, key, tenant, day, month, tokens.
_ACQUIRE = (
    _FENCED
    + """
if redis.call('EXISTS', KEYS[2]) == 1 then return 'closed' end
local now = redis.call('TIME')[1] * 1000 + 30000
local lease = open_lease(ARGV[7], 0, 0, 0, 0, ARGV[5], ARGV[6], ARGV[3], ARGV[4], '')
redis.call('SET', KEYS[2], lease, 'PX', 86400000)
for i = 3, 5 do redis.call('ZADD', KEYS[i], now, ARGV[2]) end
for i = 6, 7 do
  local counters = read_counters(redis.call('GET', KEYS[i]), KEYS[i])
  add_to_counters(counters, tonumber(ARGV[5]), tonumber(ARGV[6]), 0, tonumber(ARGV[7]))
  redis.call('SET', KEYS[i], written_counters(counters))
end
return 'admitted'
"""
)
# KEYS: the same, then usage. ARGV: incarnation, id, tokens, event, day, month.
_SETTLE = (
    _FENCED
    + """
local known = redis.call('GET', KEYS[2])
if state_of(known) == 'settled' then return 'again' end
redis.call('XADD', KEYS[8], '*', 'e', ARGV[4])
for i = 3, 5 do redis.call('ZREM', KEYS[i], ARGV[2]) end
for i = 6, 7 do
  local counters = read_counters(redis.call('GET', KEYS[i]), KEYS[i])
  local reserved = state_of(known) == 'open' and parts_of(known) or 0
  add_to_counters(counters, tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[3]), -reserved)
  redis.call('SET', KEYS[i], written_counters(counters))
end
redis.call('SET', KEYS[2], 'settled -', 'PX', 120000)
return 'settled'
"""
)
RESERVED = 1000


async def add_tenant(number: int = 1, keys: int = 2) -> list[Owner]:
    """A tenant with keys in Postgres; gives it and them."""
    tenant_id, key_ids = uuid.UUID(int=number), [uuid.UUID(int=1000 * number + key) for key in range(1, keys + 1)]
    async with engine.transaction() as held:
        await held.execute("INSERT INTO gateway.tenants (id, name) VALUES ($1, $2)", tenant_id, f"tenant-{number}")
        await held.execute("INSERT INTO gateway.tenant_limits (tenant_id) VALUES ($1)", tenant_id)
        await held.executemany(
            "INSERT INTO gateway.api_keys (id, tenant_id, prefix, name, hash) VALUES ($1, $2, $3, 'k', '$argon2id$')",
            [(key, tenant_id, f"nz_{key.int:09d}") for key in key_ids],
        )
        await held.executemany("INSERT INTO gateway.key_limits (key_id) VALUES ($1)", [(key,) for key in key_ids])
    tenant = TenantId(str(tenant_id))
    return [Owner(tenant_id=tenant), *(Owner(tenant_id=tenant, key_id=KeyId(str(key))) for key in key_ids)]


class Traffic:
    """A worker that sends requests and repeats settlements until Redis has acknowledged them."""

    def __init__(self, client: RedisClient, owners: Sequence[Owner]) -> None:
        self.client = client
        self.owners = owners
        self.keys = [owner for owner in owners if owner.key_id is not None]
        self.shard = shard_of(owners[0].tenant_id)
        self.settled = 0
        # Admissions whose answer was lost: what they left is for the reaper.
        self.unseen = 0
        self._fences = Fences(client, timeout_s=2)
        self._acquire: Any = client.register_script(_ACQUIRE)
        self._settle: Any = client.register_script(_SETTLE)

    async def admit(self, owner: Owner, lease_id: str, day: str) -> str:
        """One attempt, as a worker makes it. Raises what the client raises."""
        return await self._run(
            self._acquire,
            owner,
            lease_id,
            [f"k:{owner.key_id}", f"t:{owner.tenant_id}", day, day[:6], RESERVED],
        )

    async def settle(self, owner: Owner, lease_id: str, day: str, tokens: int) -> str:
        """One attempt, as a worker makes it. Raises what the client raises."""
        event = events.raw(
            0,
            event_id=lease_id,
            request_id=lease_id,
            tenant_id=owner.tenant_id,
            key_id=owner.key_id,
            day=day,
            created_at_ms=int(dt.datetime.now(dt.UTC).timestamp() * 1000),
            prompt_tokens=tokens - 10,
            completion_tokens=10,
        )
        return await self._run(self._settle, owner, lease_id, [tokens, event, day, day[:6]])

    async def request(self, tokens: int, *, day: str = "") -> None:
        """One request; it is over when its settlement is acknowledged, or when it was not admitted."""
        owner, lease_id = random.choice(self.keys), str(uuid.uuid4())
        day = day or today()
        try:
            if await self.admit(owner, lease_id, day) != "admitted":
                return
        except (RedisError, OSError):
            self.unseen += 1
            return
        await asyncio.sleep(random.random() * 0.02)
        while True:
            with contextlib.suppress(RedisError, OSError):
                if await self.settle(owner, lease_id, day, tokens) in {"settled", "again"}:
                    break
            await asyncio.sleep(0.05)
        self.settled += 1

    @contextlib.asynccontextmanager
    async def running(self, clients: int = 4) -> AsyncIterator[None]:
        """Requests without end; afterwards all of them are settled."""
        stop = asyncio.Event()

        async def client() -> None:
            while not stop.is_set():
                await self.request(random.randint(11, 90))
                await asyncio.sleep(0.005)

        async with asyncio.timeout(90), asyncio.TaskGroup() as tasks:
            for _ in range(clients):
                tasks.create_task(client())
            try:
                yield
            finally:
                stop.set()

    async def more(self, count: int) -> None:
        """Waits until so many further requests were settled."""
        wanted = self.settled + count
        async with asyncio.timeout(60):
            while self.settled < wanted:
                await asyncio.sleep(0.01)

    async def differences(self) -> dict[CounterName, tuple[int, int]] | None:
        """Counter and ledger where they differ, None while there is no valid fence. The ledger is read first."""
        incarnation = (await self._fences.server()).incarnation
        periods = warm_periods(dt.datetime.now(dt.UTC))
        used = await ledger.used(self.owners, periods)
        names = [(owner.scope, period) for owner in self.owners for period in periods]
        async with self.client.pipeline(transaction=True) as pipe:
            pipe.get(keyspace.fence(self.shard))
            for owner in self.owners:
                pipe.get(keyspace.counters(self.shard, owner.scope))
            fence, *values = await pipe.execute()
        if fence is None or not fence.startswith(incarnation.encode()):
            return None
        found = {owner.scope: layout.read_counters(raw) for owner, raw in zip(self.owners, values, strict=True)}
        pairs = {
            (scope, period): (found[scope].get(period, Counter()).used, used.get((scope, period), 0))
            for scope, period in names
        }
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}

    async def watch(self) -> None:
        """Fails as soon as a counter is believed that has less than the ledger."""
        while True:
            with contextlib.suppress(RedisError, OSError, TimeoutError):
                try:
                    different = await self.differences()
                except Exception as fault:
                    if type(fault).__name__ not in {"RedisUnavailableError", "StoreUnavailableError"}:
                        raise
                    different = None
                assert not {name: pair for name, pair in (different or {}).items() if pair[0] < pair[1]}
            await asyncio.sleep(0.01)

    async def reserved(self) -> dict[CounterName, int]:
        """What the counters have reserved, without those that have nothing."""
        found = {}
        for owner in self.owners:
            for period in warm_periods(dt.datetime.now(dt.UTC)):
                counter = await counter_of(self.client, self.shard, owner.scope, period)
                if counter is not None and counter.reserved:
                    found[owner.scope, period] = counter.reserved
        return found

    async def _run(self, script: Any, owner: Owner, lease_id: str, arguments: list[Any]) -> str:
        scopes = [owner.scope, Owner(tenant_id=owner.tenant_id).scope]
        keys = [
            keyspace.fence(self.shard),
            keyspace.lease(self.shard, LeaseId(lease_id)),
            keyspace.expiry(self.shard),
            *(keyspace.leases(self.shard, scope) for scope in scopes),
            *(keyspace.counters(self.shard, scope) for scope in scopes),
            keyspace.usage(self.shard),
        ]
        async with asyncio.timeout(5):
            incarnation = await self.client.info("everything")
            head = layout.incarnation(incarnation["run_id"], incarnation["master_replid"])
            return (await script(keys=keys, args=[head, lease_id, *arguments])).decode()


def today() -> str:
    return f"{dt.datetime.now(dt.UTC):%Y%m%d}"


def raw_of(**fields: Any) -> bytes:
    return records.encode(events.event(0, **fields))
