"""Rows of the audit log: pages of it, newest first, and the tail, in the order in which rows were recorded.

The log is partitioned by the day that a row is charged to, which is rarely, but sometimes, another one than that of its
``created_at``: clocks differ by minutes, and a correction lies where what it corrects lies. So every query looks a day
further than its range, and for corrections as far back as they are allowed.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence

import msgspec

from controlplane.core.corrections import CORRECTABLE_DAYS
from controlplane.store import engine
from controlplane.store.usage import bounded
from shared.keyspace import KeyId, TenantId
from shared.records import Outcome, Provenance

# Columns that are shown as they are.
_SHOWN = (
    *("event_id", "day", "created_at", "request_id", "dialect", "endpoint", "model", "backend", "status", "outcome"),
    *("refusal", "prompt_tokens", "completion_tokens", "total_tokens", "provenance", "occurrences", "duration_ms"),
    *("ttft_ms", "client_ip", "reason", "operator"),
)
_ROWS = "SELECT * FROM gateway.audit_log"
_NAMED = f"""
    SELECT {", ".join(f"r.{column}" for column in _SHOWN)}, r.ingested::text AS ingested,
        coalesce(t.name, r.tenant_id::text, '') AS tenant, coalesce(k.prefix, r.key_id::text, '') AS key"""
_NAMES = """
    LEFT JOIN gateway.tenants t ON t.id = r.tenant_id LEFT JOIN gateway.api_keys k ON k.id = r.key_id"""
_NEWEST_FIRST = ("created_at DESC", "event_id DESC")
_AS_RECORDED = ("ingested", "event_id")
_DAY = dt.timedelta(days=1)


class AuditFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows; None means any."""

    tenant_id: TenantId | None = None
    key_id: KeyId | None = None
    model: str | None = None
    status: int | None = None
    outcome: Outcome | None = None
    request_id: str | None = None


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the audit log, with names in place of ids."""

    event_id: str
    day: dt.date
    created_at: dt.datetime
    request_id: str
    tenant: str
    key: str
    dialect: str
    endpoint: str
    model: str
    backend: str
    status: int
    outcome: Outcome
    refusal: str
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    provenance: Provenance
    occurrences: int
    duration_ms: int
    ttft_ms: int | None
    client_ip: str
    reason: str
    operator: str
    # The transaction that inserted it.
    ingested: int


class Position(msgspec.Struct, frozen=True, order=True):
    """A place in the order of recording: after this row of this transaction."""

    ingested: int
    event_id: str = ""


class _Query:
    """Conditions and the arguments that they number."""

    def __init__(self, wanted: AuditFilter) -> None:
        self.arguments: list[object] = []
        self._conditions: list[str] = []
        for column in ("tenant_id", "key_id", "model", "status", "outcome", "request_id"):
            value = getattr(wanted, column)
            if value is not None:
                self.add(f"{column} = {{}}", uuid.UUID(value) if column in ("tenant_id", "key_id") else value)

    def add(self, condition: str, *values: object) -> None:
        """A condition with ``{}`` for each value."""
        numbers = range(len(self.arguments) + 1, len(self.arguments) + 1 + len(values))
        self._conditions.append(condition.format(*(f"${number}" for number in numbers)))
        self.arguments += values

    def where(self, *more: str) -> str:
        """All conditions."""
        return " WHERE " + " AND ".join((*self._conditions, *more))


async def now() -> dt.datetime:
    """The time by the clock of Postgres. Raises ``StoreUnavailableError``."""
    async with engine.connection() as connection:
        moment: dt.datetime = await connection.fetchval("SELECT now()")
    return moment


async def page(
    wanted: AuditFilter,
    *,
    since: dt.datetime,
    before: dt.datetime,
    after: tuple[dt.datetime, str] | None,
    size: int,
) -> list[AuditEntry]:
    """Up to ``size`` rows from ``since`` up to ``before``, newest first, following the one named (moment, event id).

    Raises ``QueryTooLargeError``, ``StoreUnavailableError``.
    """
    query = _Query(wanted)
    query.add("created_at >= {} AND created_at < {}", since, before)
    if after is not None:
        query.add("(created_at, event_id) < ({}, {})", *after)
    first, last = since.astimezone(dt.UTC).date() - _DAY, before.astimezone(dt.UTC).date() + _DAY
    query.arguments += [first, last, first - dt.timedelta(days=CORRECTABLE_DAYS)]
    near, far = len(query.arguments) - 2, len(query.arguments)
    order = f"ORDER BY {', '.join(_NEWEST_FIRST)} LIMIT {size}"
    branches = (
        query.where(f"day BETWEEN ${near} AND ${near + 1}"),
        query.where(f"day >= ${far} AND day < ${near}", "outcome = 'correction'"),
    )
    rows = " UNION ALL ".join(f"({_ROWS}{branch} {order})" for branch in branches)
    return await _fetch(rows, _NEWEST_FIRST, size, query.arguments)


async def horizon() -> Position:
    """Where a tail begins: after everything that is recorded now. Raises ``StoreUnavailableError``."""
    async with engine.connection() as connection:
        return Position(int(await connection.fetchval("SELECT pg_snapshot_xmin(pg_current_snapshot())::text")))


async def tail(wanted: AuditFilter, after: Position, *, today: dt.date, size: int) -> tuple[list[AuditEntry], Position]:
    """Up to ``size`` rows recorded after a position, in order, and the position up to which that is all.

    A transaction that is still open could yet commit rows before others that are there already; nothing at or beyond
    the oldest of them is shown. Raises ``QueryTooLargeError``, ``StoreUnavailableError``.
    """
    # Read first: what commits after it is at or beyond it.
    end = await horizon()
    # Transactions count from a lower number in a database that was restored from a dump.
    after = min(after, end)
    query = _Query(wanted)
    query.add("day >= {}", today - dt.timedelta(days=CORRECTABLE_DAYS + 1))
    query.add("(ingested, event_id) > ({}::text::xid8, {})", str(after.ingested), after.event_id)
    query.add("ingested < {}::text::xid8", str(end.ingested))
    rows = await _fetch(_ROWS + query.where(), _AS_RECORDED, size, query.arguments)
    if len(rows) < size:
        return rows, end
    return rows, Position(rows[-1].ingested, rows[-1].event_id)


async def find_correction(event_id: str, *, since: dt.date) -> AuditEntry | None:
    """The correction of this event id among the days since one. Raises ``StoreUnavailableError``."""
    where = " WHERE day >= $1 AND outcome = 'correction' AND event_id = $2"
    rows = await _fetch(_ROWS + where, _NEWEST_FIRST, 1, [since, event_id])
    return rows[0] if rows else None


async def _fetch(rows: str, order: Sequence[str], size: int, arguments: Sequence[object]) -> list[AuditEntry]:
    # Names are looked up for the rows that are shown, not for those that are sorted.
    first = f"({rows} ORDER BY {', '.join(order)} LIMIT {size})"
    query = " ".join((_NAMED, "FROM", first, "AS r", _NAMES, "ORDER BY", ", ".join(f"r.{term}" for term in order)))
    async with bounded() as connection:
        found = await connection.fetch(query, *arguments)
    return [msgspec.convert({**row, "ingested": int(row["ingested"])}, AuditEntry) for row in found]
