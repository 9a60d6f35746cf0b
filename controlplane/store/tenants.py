"""Tenants in Postgres: ``tenants`` and ``tenant_limits``, with an outbox row in the transaction of each change."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import AsyncIterator, Callable

import asyncpg
import msgspec

from controlplane.core.tenants import Tenant
from controlplane.errors import AlreadyExistsError, NotFoundError
from controlplane.store import engine, outbox
from controlplane.store.rows import LIMIT_COLUMNS, as_uuid, is_text, limit_values, limits_of
from controlplane.store.tables import TenantLimits, Tenants
from shared.keyspace import TenantId
from shared.records import TenantState

_COLUMNS = ", ".join(
    (
        *("t.id", "t.name", "t.status", "t.version", "t.created_at", "t.suspended_at"),
        *("t.prompt_log", "t.prompt_log_retention_days"),
        *(f"l.{c}" for c in LIMIT_COLUMNS),
    )
)
_FROM = " FROM gateway.tenants t JOIN gateway.tenant_limits l ON l.tenant_id = t.id"
_SELECT = f"SELECT {_COLUMNS}{_FROM}"


class PostgresTenants:
    """Tenants, as ``controlplane.core.ports.Tenants`` says."""

    async def create(self, tenant: Tenant) -> Tenant:
        """Commits a new tenant at version 1. Raises ``AlreadyExistsError``, ``StoreUnavailableError``."""
        created = msgspec.structs.replace(tenant, version=1)
        tenant_id = uuid.UUID(created.id)
        try:
            async with engine.transaction() as connection:
                await Tenants.insert(
                    Tenants(
                        id=tenant_id,
                        name=created.name,
                        status=created.state.value,
                        version=created.version,
                        created_at=created.created_at,
                        prompt_log=created.prompt_log,
                        prompt_log_retention_days=created.prompt_log_retention_days,
                    )
                )
                values = limit_values(created.limits, created.grants)
                await TenantLimits.insert(TenantLimits(tenant_id=tenant_id, **values))
                await outbox.enqueue(connection, outbox.OutboxKind.TENANT, tenant_id, created.version)
        except asyncpg.UniqueViolationError as fault:
            raise AlreadyExistsError(f"tenant {tenant.name} exists already") from fault
        return created

    async def get(self, reference: str) -> Tenant:
        """By name or id. Raises ``NotFoundError``, ``StoreUnavailableError``."""
        async with engine.connection() as connection:
            return _found(await _fetch(connection, reference), reference)

    async def page(self, *, after: str, size: int) -> list[Tenant]:
        """Up to ``size`` tenants whose names follow ``after``. Raises ``StoreUnavailableError``."""
        async with engine.connection() as connection:
            rows = await connection.fetch(
                f'{_SELECT} WHERE t.name COLLATE "C" > $1 ORDER BY t.name COLLATE "C" LIMIT $2', after, size
            )
        return [_tenant(row) for row in rows]

    async def change(self, reference: str, change: Callable[[Tenant, dt.datetime], Tenant]) -> Tenant:
        """Locks, applies, commits with the next version. Raises ``NotFoundError`` and what ``change`` raises."""
        async with engine.transaction() as connection:
            current = _found(await _fetch(connection, reference, " FOR UPDATE OF t, l"), reference)
            changed = change(current, await connection.fetchval("SELECT now()"))
            if changed == current:
                return current
            tenant_id = uuid.UUID(current.id)
            version = await connection.fetchval(
                "UPDATE gateway.tenants SET status = $2, suspended_at = $3, prompt_log = $4,"
                " prompt_log_retention_days = $5, version = version + 1 WHERE id = $1 RETURNING version",
                tenant_id,
                changed.state.value,
                changed.suspended_at,
                changed.prompt_log,
                changed.prompt_log_retention_days,
            )
            await TenantLimits.update(**limit_values(changed.limits, changed.grants)).where(
                TenantLimits.tenant_id == tenant_id
            )
            await outbox.enqueue(connection, outbox.OutboxKind.TENANT, tenant_id, version)
        return msgspec.structs.replace(changed, version=version)

    async def every(self, *, batch: int = 1000) -> AsyncIterator[list[Tenant]]:
        """All tenants in batches, for a rebuild. Raises ``StoreUnavailableError``."""
        after = ""
        while found := await self.page(after=after, size=batch):
            yield found
            after = found[-1].name


async def _fetch(connection: engine.Connection, reference: str, lock: str = "") -> asyncpg.Record | None:
    if not is_text(reference):
        return None
    tenant_id = as_uuid(reference)
    # A name may look like an id; the name goes first.
    row = await connection.fetchrow(f"{_SELECT} WHERE t.name = $1{lock}", reference)
    if row is None and tenant_id is not None:
        row = await connection.fetchrow(f"{_SELECT} WHERE t.id = $1{lock}", tenant_id)
    return row


def _found(row: asyncpg.Record | None, reference: str) -> Tenant:
    if row is None:
        raise NotFoundError(f"there is no tenant {reference[:64]!r}")
    return _tenant(row)


def _tenant(row: asyncpg.Record) -> Tenant:
    limits, grants = limits_of(row)
    return Tenant(
        id=TenantId(str(row["id"])),
        name=row["name"],
        state=TenantState(row["status"]),
        version=row["version"],
        created_at=row["created_at"],
        suspended_at=row["suspended_at"],
        prompt_log=row["prompt_log"],
        prompt_log_retention_days=row["prompt_log_retention_days"],
        limits=limits,
        grants=grants,
    )
