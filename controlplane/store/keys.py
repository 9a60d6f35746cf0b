"""API keys in Postgres: ``api_keys`` and ``key_limits``, with an outbox row in the transaction of each change."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import AsyncIterator, Callable

import asyncpg
import msgspec

from controlplane.core.keys import Key
from controlplane.errors import AlreadyExistsError, NotFoundError
from controlplane.store import engine, outbox
from controlplane.store.rows import LIMIT_COLUMNS, as_uuid, limit_values, limits_of
from controlplane.store.tables import APIKeys, KeyLimits
from shared import apikey
from shared.keyspace import KeyId, TenantId
from shared.records import KeyState

_COLUMNS = (
    *("id", "tenant_id", "prefix", "name", "status", "version", "created_at", "expires_at", "suspended_at"),
    *("revoked_at", "prompt_log", "prompt_log_retention_days", "rotated_from"),
)
_FIELDS = ", ".join((*(f"k.{c}" for c in _COLUMNS), *(f"l.{c}" for c in LIMIT_COLUMNS)))
_FROM = (
    " FROM gateway.api_keys k JOIN gateway.key_limits l ON l.key_id = k.id JOIN gateway.tenants t ON t.id = k.tenant_id"
)
_SELECT = f"SELECT {_FIELDS}, t.name AS tenant{_FROM}"


class PostgresKeys:
    """API keys, as ``controlplane.core.ports.Keys`` says."""

    async def create(self, key: Key, hashed: str) -> Key:
        """Commits a new key at version 1. Raises ``AlreadyExistsError``, ``NotFoundError``."""
        created = msgspec.structs.replace(key, version=1)
        try:
            async with engine.transaction() as connection:
                await _insert(connection, created, hashed)
        except asyncpg.UniqueViolationError as fault:
            raise AlreadyExistsError(f"prefix {key.prefix} is taken") from fault
        except asyncpg.ForeignKeyViolationError as fault:
            raise NotFoundError(f"there is no tenant {key.tenant!r}") from fault
        return created

    async def get(self, reference: str) -> Key:
        """By prefix or id. Raises ``NotFoundError``, ``StoreUnavailableError``."""
        async with engine.connection() as connection:
            return _found(await _fetch(connection, reference), reference)

    async def page(
        self, *, tenant_id: TenantId | None, include_ended: bool, after: tuple[dt.datetime, KeyId] | None, size: int
    ) -> list[Key]:
        """Up to ``size`` keys in order of creation. Raises ``StoreUnavailableError``."""
        after_at, after_id = after if after is not None else (None, None)
        async with engine.connection() as connection:
            rows = await connection.fetch(
                f"{_SELECT} WHERE ($1::uuid IS NULL OR k.tenant_id = $1)"
                " AND ($2 OR (k.status <> 'revoked' AND (k.expires_at IS NULL OR k.expires_at > now())))"
                " AND ($3::timestamptz IS NULL OR (k.created_at, k.id) > ($3, $4::uuid))"
                " ORDER BY k.created_at, k.id LIMIT $5",
                None if tenant_id is None else uuid.UUID(tenant_id),
                include_ended,
                after_at,
                None if after_id is None else uuid.UUID(after_id),
                size,
            )
        return [_key(row) for row in rows]

    async def change(self, reference: str, change: Callable[[Key, dt.datetime], Key]) -> Key:
        """Locks, applies, commits with the next version. Raises ``NotFoundError`` and what ``change`` raises."""
        async with engine.transaction() as connection:
            current = _found(await _fetch(connection, reference, " FOR UPDATE OF k, l"), reference)
            changed = change(current, await connection.fetchval("SELECT now()"))
            return current if changed == current else await _update(connection, changed)

    async def rotate(
        self, reference: str, hashed: str, rotation: Callable[[Key, dt.datetime], tuple[Key, Key]]
    ) -> tuple[Key, Key]:
        """Commits successor and predecessor at once. Raises ``NotFoundError``, ``AlreadyExistsError``."""
        try:
            async with engine.transaction() as connection:
                current = _found(await _fetch(connection, reference, " FOR UPDATE OF k, l"), reference)
                successor, replaced = rotation(current, await connection.fetchval("SELECT now()"))
                successor = msgspec.structs.replace(successor, version=1)
                await _insert(connection, successor, hashed)
                if replaced != current:
                    replaced = await _update(connection, replaced)
        except asyncpg.UniqueViolationError as fault:
            raise AlreadyExistsError("the prefix is taken") from fault
        return successor, replaced

    async def find_hash(self, prefix: str) -> tuple[Key, str] | None:
        """A key with its Argon2id hash, None when there is none. Raises ``StoreUnavailableError``."""
        async with engine.connection() as connection:
            row = await connection.fetchrow(
                f"SELECT {_FIELDS}, t.name AS tenant, k.hash{_FROM} WHERE k.prefix = $1",
                prefix,
            )
        return None if row is None else (_key(row), row["hash"])

    async def every(self, *, batch: int = 1000) -> AsyncIterator[list[Key]]:
        """All keys in batches, ended ones too, for a rebuild. Raises ``StoreUnavailableError``."""
        after: tuple[dt.datetime, KeyId] | None = None
        while found := await self.page(tenant_id=None, include_ended=True, after=after, size=batch):
            yield found
            after = (found[-1].created_at, found[-1].id)


async def _insert(connection: engine.Connection, key: Key, hashed: str) -> None:
    key_id = uuid.UUID(key.id)
    await APIKeys.insert(
        APIKeys(
            id=key_id,
            tenant_id=uuid.UUID(key.tenant_id),
            prefix=key.prefix,
            name=key.name,
            hash=hashed,
            status=key.state.value,
            version=key.version,
            created_at=key.created_at,
            expires_at=key.expires_at,
            prompt_log=key.prompt_log,
            prompt_log_retention_days=key.prompt_log_retention_days,
            rotated_from=None if key.rotated_from is None else uuid.UUID(key.rotated_from),
        )
    )
    await KeyLimits.insert(KeyLimits(key_id=key_id, **limit_values(key.limits, key.grants)))
    await outbox.enqueue(connection, outbox.OutboxKind.KEY, key_id, key.version)


async def _update(connection: engine.Connection, key: Key) -> Key:
    key_id = uuid.UUID(key.id)
    version = await connection.fetchval(
        "UPDATE gateway.api_keys SET status = $2, expires_at = $3, suspended_at = $4, revoked_at = $5,"
        " prompt_log = $6, prompt_log_retention_days = $7, version = version + 1 WHERE id = $1 RETURNING version",
        key_id,
        key.state.value,
        key.expires_at,
        key.suspended_at,
        key.revoked_at,
        key.prompt_log,
        key.prompt_log_retention_days,
    )
    await KeyLimits.update(**limit_values(key.limits, key.grants)).where(KeyLimits.key_id == key_id)
    await outbox.enqueue(connection, outbox.OutboxKind.KEY, key_id, version)
    return msgspec.structs.replace(key, version=version)


async def _fetch(connection: engine.Connection, reference: str, lock: str = "") -> asyncpg.Record | None:
    if apikey.is_prefix(reference):
        return await connection.fetchrow(f"{_SELECT} WHERE k.prefix = $1{lock}", reference)
    key_id = as_uuid(reference)
    return None if key_id is None else await connection.fetchrow(f"{_SELECT} WHERE k.id = $1{lock}", key_id)


def _found(row: asyncpg.Record | None, reference: str) -> Key:
    if row is None:
        # Twelve characters are public, whatever else was pasted.
        raise NotFoundError(f"there is no key {reference[: apikey.PREFIX_LENGTH]!r}")
    return _key(row)


def _key(row: asyncpg.Record) -> Key:
    limits, grants = limits_of(row)
    return Key(
        id=KeyId(str(row["id"])),
        tenant_id=TenantId(str(row["tenant_id"])),
        tenant=row["tenant"],
        prefix=row["prefix"],
        name=row["name"],
        state=KeyState(row["status"]),
        version=row["version"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        suspended_at=row["suspended_at"],
        revoked_at=row["revoked_at"],
        prompt_log=row["prompt_log"],
        prompt_log_retention_days=row["prompt_log_retention_days"],
        rotated_from=None if row["rotated_from"] is None else KeyId(str(row["rotated_from"])),
        limits=limits,
        grants=grants,
    )
