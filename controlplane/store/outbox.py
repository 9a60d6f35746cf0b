"""The transactional outbox: what has changed and must reach Redis, however often it takes."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from enum import StrEnum

import asyncpg
import msgspec

from controlplane.store import engine

KEPT = dt.timedelta(days=1)


class OutboxKind(StrEnum):
    """What has changed and waits to be published."""

    KEY = "key"
    TENANT = "tenant"
    CONFIG = "config"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One row: ``subject_id`` is a key's or tenant's id, None for the configuration."""

    id: int
    kind: OutboxKind
    subject_id: uuid.UUID | None
    version: int


async def enqueue(
    connection: engine.Connection, kind: OutboxKind, subject_id: uuid.UUID | None = None, version: int = 0
) -> None:
    """Adds a row in the transaction of the change that it announces."""
    await connection.execute(
        "INSERT INTO control.outbox (kind, subject_id, version) VALUES ($1, $2, $3)", kind.value, subject_id, version
    )


@asynccontextmanager
async def claimed(limit: int) -> AsyncIterator[Sequence[Change]]:
    """The oldest unpublished changes, locked against other replicas; marked published when the block ends well.

    Raises ``StoreUnavailableError``; an exception of the block leaves the rows for the next attempt.
    """
    async with engine.transaction() as connection:
        rows = await connection.fetch(
            "SELECT id, kind, subject_id, version FROM control.outbox WHERE published_at IS NULL"
            " ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED",
            limit,
        )
        changes = [_change(row) for row in rows]
        yield changes
        if changes:
            await connection.execute(
                "UPDATE control.outbox SET published_at = now(), revision = nextval('control.revision')"
                " WHERE id = ANY($1)",
                [change.id for change in changes],
            )


async def mark_published(kind: OutboxKind, subject_id: uuid.UUID | None, version: int, revision: int) -> None:
    """Marks what a direct publication has covered; rows that a publisher holds are left to it."""
    async with engine.connection() as connection:
        await connection.execute(
            "UPDATE control.outbox SET published_at = now(), revision = $4 WHERE id IN ("
            "SELECT id FROM control.outbox WHERE published_at IS NULL AND kind = $1"
            " AND subject_id IS NOT DISTINCT FROM $2 AND version <= $3 FOR UPDATE SKIP LOCKED)",
            kind.value,
            subject_id,
            version,
            revision,
        )


async def waiting(*, since: dt.timedelta, limit: int) -> list[Change]:
    """The oldest changes that have waited for so long, whoever holds them now."""
    async with engine.connection() as connection:
        rows = await connection.fetch(
            "SELECT id, kind, subject_id, version FROM control.outbox WHERE published_at IS NULL"
            " AND created_at < now() - $1::interval ORDER BY id LIMIT $2",
            since,
            limit,
        )
    return [_change(row) for row in rows]


async def pending() -> int:
    """How many changes wait to be published."""
    async with engine.connection() as connection:
        count: int = await connection.fetchval("SELECT count(*) FROM control.outbox WHERE published_at IS NULL")
        return count


async def forget_published() -> None:
    """Deletes rows that were published long ago."""
    async with engine.connection() as connection:
        await connection.execute("DELETE FROM control.outbox WHERE published_at < now() - $1::interval", KEPT)


async def next_revision(*, above: int = 0) -> int:
    """The next number of the one sequence that orders everything published; at any rate more than ``above``."""
    async with engine.connection() as connection:
        revision: int = await connection.fetchval("SELECT nextval('control.revision')")
    return revision if revision > above else await _skip_to(above)


async def last_revision() -> int:
    """The number that was given last, 0 before the first."""
    async with engine.connection() as connection:
        revision: int = await connection.fetchval(
            "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM control.revision"
        )
    return revision


class Revisions:
    """The sequence, as those who announce changes ask for it. Raises ``StoreUnavailableError``."""

    async def next(self, *, above: int = 0) -> int:
        """The next one, at any rate more than ``above``."""
        return await next_revision(above=above)

    async def last(self) -> int:
        """The last one that was given."""
        return await last_revision()

    def __repr__(self) -> str:
        return "Revisions()"


async def _skip_to(above: int) -> int:
    """The sequence is behind what was published, because the database is an older one: it goes on from there."""
    async with engine.transaction() as connection:
        # Else two at once could set it back behind what the other has given meanwhile.
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext('control.revision'))")
        revision: int = await connection.fetchval("SELECT nextval('control.revision')")
        if revision <= above:
            revision = await connection.fetchval("SELECT setval('control.revision', $1)", above + 1)
    return revision


def _change(row: asyncpg.Record) -> Change:
    return Change(id=row["id"], kind=OutboxKind(row["kind"]), subject_id=row["subject_id"], version=row["version"])
