"""Backends: those that were added by RPC, in ``control.backends``, and all of them in routing order."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg
import msgspec

from controlplane.core.backends import MAX_BACKENDS, AddedBackend, BackendName, StaticBackend, ranks
from controlplane.errors import AlreadyExistsError, NotFoundError, StateConflictError
from controlplane.store import engine, outbox
from shared.records import BackendRecord
from shared.sealing import Sealer

_FIELDS = ("name", "url", "header", "scheme", "sealed_token", "priority", "weight")
_SELECT = "SELECT name, url, header, scheme, sealed_token, priority, weight FROM control.backends"


class PostgresBackends:
    """Backends added by RPC. Every change is also a row of the outbox. Raises ``StoreUnavailableError``."""

    async def page(self) -> list[AddedBackend]:
        """All of them, by priority and then age."""
        async with engine.connection() as connection:
            rows = await connection.fetch(f"{_SELECT} ORDER BY priority, created_at, name")
        return [_backend(row) for row in rows]

    async def get(self, name: str) -> AddedBackend:
        """By name. Raises ``NotFoundError``."""
        async with engine.connection() as connection:
            row = await connection.fetchrow(f"{_SELECT} WHERE name = $1", name)
        if row is None:
            raise NotFoundError(f"there is no backend {name!r} that was added by RPC")
        return _backend(row)

    async def add(self, backend: AddedBackend) -> None:
        """Commits a new backend. Raises ``AlreadyExistsError``, ``StateConflictError`` when there are too many."""
        try:
            async with engine.transaction() as connection:
                if await connection.fetchval("SELECT count(*) FROM control.backends") >= MAX_BACKENDS:
                    raise StateConflictError(f"there are {MAX_BACKENDS} backends already")
                await connection.execute(
                    "INSERT INTO control.backends (name, url, header, scheme, sealed_token, priority, weight)"
                    " VALUES ($1, $2, $3, $4, $5, $6, $7)",
                    *_values(backend),
                )
                await outbox.enqueue(connection, outbox.OutboxKind.CONFIG)
        except asyncpg.UniqueViolationError as fault:
            raise AlreadyExistsError(f"there is a backend {backend.name!r} already") from fault

    async def replace(self, backend: AddedBackend) -> None:
        """Commits new values for an existing backend, which keeps its age. Raises ``NotFoundError``."""
        async with engine.transaction() as connection:
            changed = await connection.fetchval(
                "UPDATE control.backends SET url = $2, header = $3, scheme = $4, sealed_token = $5, priority = $6,"
                " weight = $7 WHERE name = $1 RETURNING name",
                *_values(backend),
            )
            if changed is None:
                raise NotFoundError(f"there is no backend {backend.name!r} that was added by RPC")
            await outbox.enqueue(connection, outbox.OutboxKind.CONFIG)

    async def remove(self, name: str) -> None:
        """Commits the end of a backend. Raises ``NotFoundError``."""
        async with engine.transaction() as connection:
            removed = await connection.fetchval("DELETE FROM control.backends WHERE name = $1 RETURNING name", name)
            if removed is None:
                raise NotFoundError(f"there is no backend {name!r} that was added by RPC")
            await outbox.enqueue(connection, outbox.OutboxKind.CONFIG)

    def __repr__(self) -> str:
        return "PostgresBackends()"


class RoutedBackends:
    """Static backends, then added ones, as records with sealed tokens and published priorities.

    This is the ``BackendSource`` of ``controlplane.core.ports``. A static backend hides an added one of its name.
    """

    def __init__(self, *, static: Sequence[StaticBackend], added: PostgresBackends, sealer: Sealer) -> None:
        self._added = added
        self._static_priorities = [backend.priority for backend in static]
        # Sealed once: sealing the same token again gives another text.
        self._static = [_record(backend, sealer) for backend in static]
        self._names = frozenset(backend.name for backend in static)

    @property
    def static_names(self) -> frozenset[str]:
        """Names of the backends that the environment of this process gives."""
        return self._names

    async def backends(self) -> Sequence[BackendRecord]:
        """All backends in routing order. Raises ``StoreUnavailableError``."""
        added = [backend for backend in await self._added.page() if backend.name not in self._names]
        keys = [(0, priority) for priority in self._static_priorities] + [(1, backend.priority) for backend in added]
        records = self._static + [
            BackendRecord(
                name=backend.name,
                url=backend.url,
                header=backend.header,
                scheme=backend.scheme,
                sealed_token=backend.sealed_token,
                weight=backend.weight,
            )
            for backend in added
        ]
        return tuple(
            msgspec.structs.replace(record, priority=rank) for record, rank in zip(records, ranks(keys), strict=True)
        )

    def __repr__(self) -> str:
        return f"RoutedBackends(static={len(self._static)})"


def _record(backend: StaticBackend, sealer: Sealer) -> BackendRecord:
    return BackendRecord(
        name=backend.name,
        url=backend.url,
        header=backend.header,
        scheme=backend.scheme,
        sealed_token=sealer.seal(backend.name, backend.token) if backend.token else None,
        weight=backend.weight,
    )


def _backend(row: asyncpg.Record) -> AddedBackend:
    return AddedBackend(name=BackendName(row["name"]), **{field: row[field] for field in _FIELDS[1:]})


def _values(backend: AddedBackend) -> list[object]:
    return [getattr(backend, field) for field in _FIELDS]
