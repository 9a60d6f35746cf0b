"""What the ledger knows about counters: what was used, and which events it has. For rebuilds and their guard.

``locked`` keeps the drain from recording anything in its shards; what is read meanwhile belongs together.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Sequence

import asyncpg

from controlplane.core.counters import CounterName, Owner
from controlplane.store import engine
from controlplane.store.ledger import SHARD_LOCKS
from shared import keyspace
from shared.keyspace import SHARDS, KeyId, LeaseId, Period, Shard, TenantId
from shared.records import CORRECTION_SUFFIX

LOCK_TIMEOUT_S = 10.0
# Corrections of crashed requests that a server with older data may not know of.
_CORRECTED_WITHIN = dt.timedelta(days=2)

# By the primary key: the table also holds every day that ever was.
_USED = """
    SELECT kind = 'key' AS is_key, usage.scope_id, usage.period, usage.total_tokens
    FROM (
        SELECT 'tenant'::gateway.scope_kind AS kind, unnest($1::uuid[]) AS id
        UNION ALL
        SELECT 'key'::gateway.scope_kind, unnest($2::uuid[])
    ) AS owner
    CROSS JOIN unnest($3::text[]) AS wanted (period)
    JOIN gateway.budget_usage AS usage
        ON usage.scope_kind = owner.kind AND usage.scope_id = owner.id AND usage.period = wanted.period"""


class ShardsLock:
    """The right to be the only one who reads or writes these shards' ledger, as long as its connection lives."""

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self._connection = connection

    async def confirm(self) -> None:
        """Raises ``StoreUnavailableError`` when the lock may be gone."""
        with engine.translated():
            await self._connection.fetchval("SELECT 1", timeout=LOCK_TIMEOUT_S)

    def __repr__(self) -> str:
        return f"ShardsLock(closed={self._connection.is_closed()})"


@contextlib.asynccontextmanager
async def locked(shards: Collection[Shard]) -> AsyncIterator[ShardsLock]:
    """The shards' locks on a connection of their own; they go with it. Raises ``StoreUnavailableError``."""
    connection = await engine.new_connection("lock")
    try:
        with engine.translated():
            # In one order, so that two who ask cannot hold what the other waits for.
            for number in sorted(SHARDS.index(shard) for shard in shards):
                await connection.execute("SELECT pg_advisory_lock($1, $2)", SHARD_LOCKS, number, timeout=LOCK_TIMEOUT_S)
        yield ShardsLock(connection)
    finally:
        with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await connection.close(timeout=engine.CLOSE_TIMEOUT_S)


async def used(owners: Collection[Owner], periods: Sequence[Period]) -> dict[CounterName, int]:
    """Tokens of each owner in each period; without those that have none. Raises ``StoreUnavailableError``."""
    tenants = [uuid.UUID(owner.tenant_id) for owner in owners if owner.key_id is None]
    keys = [uuid.UUID(owner.key_id) for owner in owners if owner.key_id is not None]
    async with engine.connection() as connection:
        rows = await connection.fetch(_USED, tenants, keys, list(periods))
    return {
        (
            keyspace.key_scope(KeyId(str(row["scope_id"])))
            if row["is_key"]
            else keyspace.tenant_scope(TenantId(str(row["scope_id"]))),
            Period(row["period"]),
        ): row["total_tokens"]
        for row in rows
    }


async def recorded(events: Collection[tuple[dt.date, str]]) -> set[tuple[dt.date, str]]:
    """Which of these events, by day and event id, are in the ledger. Raises ``StoreUnavailableError``."""
    if not events:
        return set()
    days, ids = zip(*events, strict=True)
    async with engine.connection() as connection:
        rows = await connection.fetch(
            "SELECT day, event_id FROM gateway.audit_log"
            " JOIN unnest($1::date[], $2::text[]) AS wanted (day, event_id) USING (day, event_id)",
            list(days),
            list(ids),
        )
    return {(row["day"], row["event_id"]) for row in rows}


async def corrected_leases() -> dict[Shard, list[LeaseId]]:
    """Leases that were charged as crashed and whose correction the ledger has. Raises ``StoreUnavailableError``."""
    async with engine.connection() as connection:
        rows = await connection.fetch(
            "SELECT tenant_id, event_id FROM gateway.audit_log WHERE outcome = 'correction'"
            " AND created_at > now() - $1::interval AND right(event_id, length($2)) = $2",
            _CORRECTED_WITHIN,
            CORRECTION_SUFFIX,
        )
    found: dict[Shard, list[LeaseId]] = defaultdict(list)
    for row in rows:
        shard = keyspace.shard_of(TenantId(str(row["tenant_id"])))
        found[shard].append(LeaseId(row["event_id"].removesuffix(CORRECTION_SUFFIX)))
    return found


async def has_keys() -> bool:
    """Whether there is anybody who could ever be charged. Raises ``StoreUnavailableError``."""
    async with engine.connection() as connection:
        return bool(await connection.fetchval("SELECT EXISTS (SELECT FROM gateway.api_keys)"))


async def some_owners(after: uuid.UUID, count: int) -> list[tuple[uuid.UUID, Owner]]:
    """Keys in the order of their ids, from one on, each as an owner. Raises ``StoreUnavailableError``."""
    async with engine.connection() as connection:
        rows = await connection.fetch(
            "SELECT id, tenant_id FROM gateway.api_keys WHERE id > $1 ORDER BY id LIMIT $2", after, count
        )
    return [(row["id"], Owner(tenant_id=TenantId(str(row["tenant_id"])), key_id=KeyId(str(row["id"])))) for row in rows]
