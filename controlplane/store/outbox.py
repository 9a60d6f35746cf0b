"""The transactional outbox: what has changed and must reach Redis, however often it takes."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from enum import StrEnum

import msgspec

from controlplane.store import engine

KEPT = dt.timedelta(days=1)


class OutboxKind(StrEnum):
    """What has changed and waits to be published."""

    KEY = "key"
    TENANT = "tenant"
    CONFIG = "config"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One row: ``subject_id`` is a key's or tenant's id, None for the backends."""

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
        changes = [
            Change(id=row["id"], kind=OutboxKind(row["kind"]), subject_id=row["subject_id"], version=row["version"])
            for row in rows
        ]
        yield changes
        if changes:
            await connection.execute(
                "UPDATE control.outbox SET published_at = now(), revision = nextval('control.revision')"
                " WHERE id = ANY($1)",
                [change.id for change in changes],
            )


async def mark_published(kind: OutboxKind, subject_id: uuid.UUID | None, version: int) -> None:
    """Marks what a direct publication has covered; rows that a publisher holds are left to it."""
    async with engine.connection() as connection:
        await connection.execute(
            "UPDATE control.outbox SET published_at = now(), revision = nextval('control.revision') WHERE id IN ("
            "SELECT id FROM control.outbox WHERE published_at IS NULL AND kind = $1"
            " AND subject_id IS NOT DISTINCT FROM $2 AND version <= $3 FOR UPDATE SKIP LOCKED)",
            kind.value,
            subject_id,
            version,
        )


async def pending() -> int:
    """How many changes wait to be published."""
    async with engine.connection() as connection:
        count: int = await connection.fetchval("SELECT count(*) FROM control.outbox WHERE published_at IS NULL")
        return count


async def forget_published() -> None:
    """Deletes rows that were published long ago."""
    async with engine.connection() as connection:
        await connection.execute("DELETE FROM control.outbox WHERE published_at < now() - $1::interval", KEPT)


async def next_revision() -> int:
    """The next number of the one sequence that orders everything published."""
    async with engine.connection() as connection:
        revision: int = await connection.fetchval("SELECT nextval('control.revision')")
        return revision
