"""Who changed what: a row before each mutation, completed by how it ended.

The row is written first, so that no change can happen without one; a row that still says ``started`` belongs to a call
whose end is not known (the process or Postgres went away in the middle).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from controlplane.store import engine

STARTED = "started"


class AuditFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows to list; what is None or empty does not narrow. ``before`` is the id of the last row already seen."""

    caller: str = ""
    method: str = ""
    target: str = ""
    since: dt.datetime | None = None
    until: dt.datetime | None = None
    before: int | None = None


class AuditRow(msgspec.Struct, frozen=True, kw_only=True):
    """One mutation; ``detail`` is the request as JSON without secrets."""

    id: int
    at: dt.datetime
    caller: str
    role: str
    method: str
    target: str
    outcome: str
    detail: str


_PAGE = """
    SELECT id, at, caller, role, method, target, outcome, detail::text AS detail FROM control.operator_audit
    WHERE ($1 = '' OR caller = $1) AND ($2 = '' OR method = $2) AND ($3 = '' OR target = $3)
        AND ($4::timestamptz IS NULL OR at >= $4) AND ($5::timestamptz IS NULL OR at < $5)
        AND ($6::bigint IS NULL OR id < $6)
    ORDER BY id DESC LIMIT $7"""


async def begin(*, caller: str, role: str, method: str, target: str, detail: Mapping[str, Any]) -> int:
    """Writes the row and gives its id. ``detail`` holds no secret. Raises ``StoreUnavailableError``."""
    async with engine.connection() as connection:
        row_id: int = await connection.fetchval(
            "INSERT INTO control.operator_audit (caller, role, method, target, detail, outcome)"
            " VALUES ($1, $2, $3, $4, $5, $6) RETURNING id",
            caller,
            role,
            method,
            target,
            msgspec.json.encode(detail).decode(),
            STARTED,
        )
        return row_id


async def finish(row_id: int, outcome: str) -> None:
    """Completes the row with the status that the caller got. Raises ``StoreUnavailableError``."""
    async with engine.connection() as connection:
        await connection.execute("UPDATE control.operator_audit SET outcome = $2 WHERE id = $1", row_id, outcome)


async def page(wanted: AuditFilter, *, size: int) -> Sequence[AuditRow]:
    """The newest rows that fit, newest first. Raises ``StoreUnavailableError``."""
    async with engine.connection() as connection:
        rows = await connection.fetch(
            _PAGE, wanted.caller, wanted.method, wanted.target, wanted.since, wanted.until, wanted.before, size
        )
    return [AuditRow(**dict(row)) for row in rows]
