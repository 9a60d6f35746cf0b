"""Sums of usage: over rows of the audit log, or over the sums per day that the ledger keeps for ever."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager

import asyncpg
import msgspec

from controlplane.core.usage_query import By, DayRange, Spent
from controlplane.errors import QueryTooLargeError
from controlplane.store import engine
from controlplane.store.engine import Connection
from shared import keyspace
from shared.keyspace import KeyId, Period, Scope, TenantId

MAX_ROWS = 2000
# Below the deadline of a command, so that the server says what was wrong and the connection survives.
QUERY_TIMEOUT_MS = 8000

_TEXTS = frozenset({"key", "key_name", "model", "period"})
# What a row is about, by column: an expression over the rows of the audit log.
_GROUPS: dict[By, dict[str, str]] = {
    By.TENANT: {"tenant_id": "tenant_id"},
    By.KEY: {"tenant_id": "tenant_id", "key_id": "key_id"},
    By.MODEL: {"model": "model"},
    By.DAY: {"period": "to_char(day, 'YYYYMMDD')"},
    By.MONTH: {"period": "to_char(day, 'YYYYMM')"},
    By.STATUS: {"status": "status"},
}
_TYPES = {"tenant_id": "uuid", "key_id": "uuid", "model": "text", "period": "text", "status": "int"}

_AUDIT_SUMS = """
    coalesce(sum(occurrences) FILTER (WHERE outcome NOT IN ('refused', 'correction')), 0)::bigint AS requests,
    coalesce(sum(occurrences) FILTER (WHERE outcome = 'refused'), 0)::bigint AS refused,
    coalesce(sum(occurrences) FILTER (WHERE outcome IN ('upstream_failed', 'crashed', 'cut')), 0)::bigint AS errors,
    coalesce(sum(prompt_tokens), 0)::bigint AS prompt_tokens,
    coalesce(sum(completion_tokens), 0)::bigint AS completion_tokens,
    coalesce(sum(total_tokens), 0)::bigint AS total_tokens,
    coalesce(sum(total_tokens) FILTER (WHERE outcome <> 'correction' AND provenance = 'reported'), 0)::bigint
        AS reported_tokens,
    coalesce(sum(total_tokens) FILTER (WHERE outcome <> 'correction' AND provenance = 'counted'), 0)::bigint
        AS counted_tokens,
    coalesce(sum(total_tokens) FILTER (WHERE outcome <> 'correction' AND provenance = 'estimated'), 0)::bigint
        AS estimated_tokens,
    coalesce(sum(total_tokens) FILTER (WHERE outcome = 'correction'), 0)::bigint AS corrected_tokens"""
_DAY_SUMS = """
    coalesce(sum(requests), 0)::bigint AS requests, NULL::bigint AS refused, NULL::bigint AS errors,
    coalesce(sum(prompt_tokens), 0)::bigint AS prompt_tokens,
    coalesce(sum(completion_tokens), 0)::bigint AS completion_tokens,
    coalesce(sum(total_tokens), 0)::bigint AS total_tokens,
    NULL::bigint AS reported_tokens, NULL::bigint AS counted_tokens, NULL::bigint AS estimated_tokens,
    NULL::bigint AS corrected_tokens"""

_NAMED = "SELECT s.*, t.name AS tenant, k.prefix AS key, k.name AS key_name"
_NAMES = """
    LEFT JOIN gateway.tenants t ON t.id = s.tenant_id LEFT JOIN gateway.api_keys k ON k.id = s.key_id"""
_ORDER = "is_total DESC, total_tokens DESC, requests DESC"
_DAYS = """
    SELECT to_date(u.period, 'YYYYMMDD') AS day, k.id AS key_id, u.requests, u.prompt_tokens, u.completion_tokens,
        u.total_tokens, CASE WHEN u.scope_kind = 'tenant' THEN u.scope_id ELSE k.tenant_id END AS tenant_id
    FROM gateway.budget_usage u LEFT JOIN gateway.api_keys k ON u.scope_kind = 'key' AND k.id = u.scope_id"""


class UsageSum(msgspec.Struct, frozen=True, kw_only=True):
    """One row of sums. What is None is unknown (counts) or not what the row is about (the rest)."""

    tenant: str = ""
    key: str = ""
    key_name: str = ""
    model: str = ""
    period: str = ""
    status: int | None = None
    requests: int
    refused: int | None
    errors: int | None
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    reported_tokens: int | None
    counted_tokens: int | None
    estimated_tokens: int | None
    corrected_tokens: int | None


class UsageSums(msgspec.Struct, frozen=True, kw_only=True):
    """Rows, those with most tokens first, and the sum of all, also of the ``left_out``."""

    rows: tuple[UsageSum, ...]
    total: UsageSum
    left_out: int


async def sum_audit_log(by: By, days: DayRange, *, tenant_id: TenantId | None, key_id: KeyId | None) -> UsageSums:
    """Sums over rows of the audit log. Raises ``QueryTooLargeError``, ``StoreUnavailableError``."""
    arguments: list[object] = [days.first, days.last]
    conditions = ["day BETWEEN $1 AND $2"]
    for column, value in (("tenant_id", tenant_id), ("key_id", key_id)):
        if value is not None:
            arguments.append(uuid.UUID(value))
            conditions.append(f"{column} = ${len(arguments)}")
    rows = " ".join(("SELECT * FROM gateway.audit_log WHERE", " AND ".join(conditions)))
    return await _sums(by, rows, _AUDIT_SUMS, arguments)


async def sum_days(by: By, days: DayRange, *, tenant_id: TenantId | None, key_id: KeyId | None) -> UsageSums:
    """Sums over the ledger's sums per day. Raises ``QueryTooLargeError``, ``StoreUnavailableError``."""
    arguments: list[object] = [f"{days.first:%Y%m%d}", f"{days.last:%Y%m%d}"]
    conditions = ["length(u.period) = 8", "u.period BETWEEN $1 AND $2"]
    if key_id is not None:
        arguments.append(uuid.UUID(key_id))
        conditions += ["scope_kind = 'key'", "scope_id = $3"]
    elif by is By.KEY:
        conditions.append("scope_kind = 'key'")
        if tenant_id is not None:
            arguments.append(uuid.UUID(tenant_id))
            conditions.append("k.tenant_id = $3")
    else:
        conditions.append("scope_kind = 'tenant'")
        if tenant_id is not None:
            arguments.append(uuid.UUID(tenant_id))
            conditions.append("scope_id = $3")
    rows = " ".join((_DAYS, "WHERE", " AND ".join(conditions)))
    return await _sums(by, rows, _DAY_SUMS, arguments)


async def spent(scopes: Collection[Scope], periods: Sequence[Period]) -> dict[tuple[Scope, Period], Spent]:
    """What the ledger says of scopes in periods; nothing where there is nothing. Raises ``StoreUnavailableError``."""
    ids = {scope.partition(":")[2]: scope for scope in scopes}
    async with engine.connection() as connection:
        rows = await connection.fetch(
            "SELECT scope_kind, scope_id, period, total_tokens, requests FROM gateway.budget_usage"
            " WHERE scope_kind IN ('key', 'tenant') AND scope_id = ANY($1) AND period = ANY($2)",
            [uuid.UUID(scope_id) for scope_id in ids],
            list(periods),
        )
    return {
        (_scope(row["scope_kind"], str(row["scope_id"])), Period(row["period"])): Spent(
            tokens=row["total_tokens"], requests=row["requests"]
        )
        for row in rows
    }


@asynccontextmanager
async def bounded() -> AsyncIterator[Connection]:
    """A transaction whose statements end in time. Raises ``QueryTooLargeError``, ``StoreUnavailableError``."""
    async with engine.transaction() as connection:
        await connection.execute(f"SET LOCAL statement_timeout = {QUERY_TIMEOUT_MS}")
        try:
            yield connection
        except asyncpg.QueryCanceledError as fault:
            raise QueryTooLargeError("the answer takes too long: name a tenant, a key or a shorter range") from fault


async def _sums(by: By, rows: str, sums: str, arguments: Sequence[object]) -> UsageSums:
    groups = _GROUPS[by]
    columns = ", ".join(f"{groups.get(name, 'NULL')}::{kind} AS {name}" for name, kind in _TYPES.items())
    expressions = ", ".join(groups.values())
    # The empty grouping set is the sum of everything; it is there also when there are no rows.
    first = f"""
        SELECT {columns}, grouping({expressions}) <> 0 AS is_total, count(*) OVER () - 1 AS row_count, {sums}"""
    grouped = f"GROUP BY GROUPING SETS (({expressions}), ()) ORDER BY {_ORDER}, 1, 2, 3, 4, 5 LIMIT {MAX_ROWS + 1}"
    grouped = f"{first} FROM ({rows}) AS r {grouped}"
    query = f"{_NAMED} FROM ({grouped}) AS s {_NAMES} ORDER BY {_ORDER}"
    async with bounded() as connection:
        total, *found = await connection.fetch(query, *arguments)
    return UsageSums(
        rows=tuple(_sum(row) for row in found), total=_sum(total), left_out=total["row_count"] - len(found)
    )


def _sum(row: asyncpg.Record) -> UsageSum:
    values = dict(row)
    # A tenant that nobody knows any more is still told apart by its id.
    values["tenant"] = values["tenant"] or ("" if row["tenant_id"] is None else str(row["tenant_id"]))
    return msgspec.convert(
        {name: "" if value is None and name in _TEXTS else value for name, value in values.items()}, UsageSum
    )


def _scope(kind: str, scope_id: str) -> Scope:
    return keyspace.key_scope(KeyId(scope_id)) if kind == "key" else keyspace.tenant_scope(TenantId(scope_id))
