"""Partitions of the logs: made ahead, dropped when their time is over; and the end of prompts, key by key."""

from __future__ import annotations

import datetime as dt
from typing import Literal

import asyncpg

from controlplane.errors import StoreUnavailableError
from controlplane.store import engine

# Taken for one transaction each, so that two replicas do not drop the same partition.
_LOCK = 771_205
# Dropping locks out readers; rather than making them wait behind a long query it is tried again later.
_LOCK_TIMEOUT = "3s"
_DELETE_BATCH = 2000

_PARTITIONS = """
    SELECT child.relname AS name, to_date(right(child.relname, 8), 'YYYYMMDD') AS day
    FROM pg_inherits
    JOIN pg_class child ON child.oid = inhrelid
    JOIN pg_class parent ON parent.oid = inhparent
    JOIN pg_namespace space ON space.oid = parent.relnamespace
    WHERE space.nspname = 'gateway' AND parent.relname = $1 AND child.relname ~ '_[0-9]{8}$'
    ORDER BY day"""


async def today() -> dt.date:
    """The day in UTC by the clock of Postgres. Raises ``StoreUnavailableError``."""
    async with engine.connection() as connection:
        day: dt.date = await connection.fetchval("SELECT (now() AT TIME ZONE 'UTC')::date")
    return day


async def make_partitions(*, days_ahead: int) -> None:
    """Makes the partitions from yesterday to so many days ahead. Raises ``StoreUnavailableError``."""
    async with engine.transaction() as connection:
        await connection.execute("SELECT gateway.ensure_partitions($1)", days_ahead)


async def drop_audit_partitions(*, before: dt.date) -> int:
    """Drops the audit rows of all days before one; how many days. Raises ``StoreUnavailableError``."""
    days = [day for day in await _partition_days("audit_log") if day < before]
    return sum([await _drop("audit_log", day) for day in days])


async def drop_prompt_partitions(*, before: dt.date) -> int:
    """Drops days before one on which no prompt is kept any more; how many. Raises ``StoreUnavailableError``."""
    days = [day for day in await _partition_days("prompt_log") if day < before]
    return sum([await _drop("prompt_log", day) for day in days])


async def delete_prompts(*, on: dt.date) -> int:
    """Deletes the prompts whose time is over on a day; how many. Raises ``StoreUnavailableError``."""
    total = 0
    while True:
        async with engine.transaction() as connection:
            deleted: int = await connection.fetchval(
                "WITH gone AS (DELETE FROM gateway.prompt_log WHERE (day, event_id) IN ("
                "SELECT day, event_id FROM gateway.prompt_log WHERE expires_on <= $1 LIMIT $2) RETURNING 1)"
                " SELECT count(*) FROM gone",
                on,
                _DELETE_BATCH,
            )
        total += deleted
        if deleted < _DELETE_BATCH:
            return total


async def _partition_days(parent: str) -> list[dt.date]:
    async with engine.connection() as connection:
        return [row["day"] for row in await connection.fetch(_PARTITIONS, parent)]


async def _drop(parent: Literal["audit_log", "prompt_log"], day: dt.date) -> bool:
    try:
        async with engine.transaction() as connection:
            await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
            # A function, because only the owner of the schema may drop tables, and a control plane need not be it.
            dropped: bool = await connection.fetchval("SELECT gateway.drop_partition($1, $2)", parent, day)
    except asyncpg.LockNotAvailableError as fault:
        raise StoreUnavailableError(f"partition {parent}_{day:%Y%m%d} is in use") from fault
    return dropped
