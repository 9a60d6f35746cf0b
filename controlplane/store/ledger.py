"""The ledger: usage events into ``audit_log``, ``budget_usage`` and ``prompt_log``, each event exactly once.

``record`` may be called with the same events again, by any number of processes at once: what was inserted before
counts no second time.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import asyncpg
import msgspec

from controlplane.core.usage import AnonymousRow, DeadLetter, UsageRow, storable
from controlplane.errors import StoreUnavailableError
from controlplane.store import engine
from controlplane.store.engine import Connection
from shared.keyspace import SHARDS, Shard

# First number of the advisory locks of shards, the second is the shard's number. Recording holds a shard's lock
# shared; whoever rebuilds the shard's counters from the ledger holds it alone. It must be the same in every release.
SHARD_LOCKS = 771_204

_RECORD = (Path(__file__).parent / "ledger.sql").read_text()
# The database refuses a value: trying the same rows again is useless.
_UNSTORABLE = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    asyncpg.UntranslatableCharacterError,
)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A usage event and where it came from."""

    shard: Shard
    entry_id: str
    raw: bytes
    row: UsageRow


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a batch; what is in neither count was recorded before."""

    inserted: int = 0
    dead: int = 0

    def __add__(self, other: Recorded) -> Recorded:
        return Recorded(inserted=self.inserted + other.inserted, dead=self.dead + other.dead)


async def record(entries: Sequence[Entry], letters: Sequence[DeadLetter] = ()) -> Recorded:
    """Records events and dead letters, normally in one transaction; partitions that are missing are made.

    An event that the database refuses becomes a dead letter and does not hold up the others. Raises
    ``StoreUnavailableError`` when it must be tried again; some of the events may be recorded then.
    """
    if not entries and not letters:
        return Recorded()
    try:
        return await _record_together(entries, letters)
    except _UNSTORABLE as fault:
        return await _record_apart(entries, letters, type(fault).__name__)
    except asyncpg.PostgresError as fault:
        raise StoreUnavailableError(f"Postgres: {type(fault).__name__}") from fault


async def record_anonymous(rows: Sequence[AnonymousRow], letters: Sequence[DeadLetter] = ()) -> None:
    """Records counted authentication failures, each once; no counter has them. Raises ``StoreUnavailableError``."""
    try:
        async with engine.transaction() as connection:
            for day in sorted({row.day for row in rows}):
                await connection.execute("SELECT gateway.ensure_partition($1)", day)
            await connection.executemany(
                "INSERT INTO gateway.audit_log (event_id, day, created_at, request_id, dialect, endpoint, status,"
                " outcome, refusal, provenance, occurrences, client_ip)"
                " VALUES ($1, $2, $3, '', '', '', $4, 'refused', $5, 'counted', $6, $7) ON CONFLICT DO NOTHING",
                [
                    (row.event_id, row.day, row.created_at, row.status, row.reason, row.occurrences, row.block)
                    for row in rows
                ],
            )
            await _bury(connection, letters)
    except asyncpg.PostgresError as fault:
        raise StoreUnavailableError(f"Postgres: {type(fault).__name__}") from fault


async def _bury(connection: Connection, letters: Sequence[DeadLetter]) -> None:
    await connection.executemany(
        "INSERT INTO control.dead_letters (shard, entry_id, entry, reason) VALUES ($1, $2, $3, $4) "
        "ON CONFLICT DO NOTHING",
        [(letter.shard, letter.entry_id, letter.raw, letter.reason) for letter in letters],
    )


async def _record_together(entries: Sequence[Entry], letters: Sequence[DeadLetter]) -> Recorded:
    async with engine.transaction() as connection:
        await _hold_shards(connection, {entry.shard for entry in entries} | {letter.shard for letter in letters})
        inserted = 0
        if entries:
            rows = [entry.row for entry in entries]
            for day in sorted({row.day for row in rows}):
                await connection.execute("SELECT gateway.ensure_partition($1)", day)
            inserted = await connection.fetchval(_RECORD, *_columns(rows), *_prompt_columns(rows))
        await _bury(connection, letters)
    return Recorded(inserted=inserted, dead=len(letters))


async def _record_apart(entries: Sequence[Entry], letters: Sequence[DeadLetter], reason: str) -> Recorded:
    """Halves a batch that was refused until the event to blame stands alone."""
    if len(entries) <= 1:
        dead = [
            DeadLetter(
                shard=entry.shard,
                entry_id=entry.entry_id,
                raw=storable(entry.raw.decode("utf-8", "backslashreplace")),
                reason=reason,
            )
            for entry in entries
        ]
        return await _record_together((), [*letters, *dead])
    middle = len(entries) // 2
    return await record(entries[:middle], letters) + await record(entries[middle:])


async def _hold_shards(connection: Connection, shards: Collection[str]) -> None:
    # In one order, so that two batches cannot hold what the other waits for.
    await connection.execute(
        "SELECT pg_advisory_xact_lock_shared($1::int, number) FROM unnest($2::int[]) AS number",
        SHARD_LOCKS,
        sorted(SHARDS.index(Shard(shard)) for shard in shards),
    )


def _columns(rows: Sequence[UsageRow]) -> list[list[object]]:
    """The columns of ``audit_log`` as the statement numbers them."""
    return [
        list(column)
        for column in zip(
            *(
                (
                    row.event.event_id,
                    row.day,
                    row.created_at,
                    storable(row.event.request_id),
                    row.tenant_id,
                    row.key_id,
                    storable(row.event.dialect),
                    storable(row.event.endpoint),
                    storable(row.event.model),
                    storable(row.event.backend),
                    row.event.status,
                    row.event.outcome,
                    storable(row.event.refusal),
                    row.event.prompt_tokens,
                    row.event.completion_tokens,
                    row.event.provenance,
                    row.event.occurrences,
                    row.event.duration_ms,
                    row.event.ttft_ms,
                    storable(row.event.client_ip),
                    storable(row.event.reason),
                    storable(row.event.operator),
                )
                for row in rows
            ),
            strict=True,
        )
    ]


def _prompt_columns(rows: Sequence[UsageRow]) -> list[list[object]]:
    """The columns of ``prompt_log`` as the statement numbers them; empty lists without prompts."""
    kept = [
        (
            row.event.event_id,
            row.day,
            None if row.event.prompt is None else storable(row.event.prompt),
            None if row.event.reply is None else storable(row.event.reply),
            row.expires_on,
        )
        for row in rows
        if row.expires_on is not None
    ]
    return [list(column) for column in zip(*kept, strict=True)] if kept else [[] for _ in range(5)]
