"""Brings committed changes to Redis: at once after a commit, and again for as long as it takes.

What is written is always the state that Postgres holds now, never the state that some change carried; repeating a
publication is harmless, and two of them in any order end the same.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from controlplane.errors import RedisUnavailableError, StoreUnavailableError
from controlplane.publish.redis_state import RedisState
from controlplane.store import outbox
from controlplane.store.backends import RoutedBackends
from controlplane.store.keys import PostgresKeys
from controlplane.store.outbox import Change, OutboxKind
from controlplane.store.tenants import PostgresTenants
from shared import logs
from shared.keyspace import KeyId, TenantId
from shared.records import BackendRecord, ConfigRecord
from shared.sealing import Sealer, SealError

_log = logs.get("controlplane.publish")


class StatePublisher:
    """Publishes keys, tenants and backends, as ``controlplane.core.ports.Publisher`` says."""

    def __init__(
        self,
        *,
        keys: PostgresKeys,
        tenants: PostgresTenants,
        backends: RoutedBackends,
        state: RedisState,
        sealer: Sealer,
    ) -> None:
        self._keys = keys
        self._tenants = tenants
        self._backends = backends
        self._state = state
        self._sealer = sealer

    async def publish_key(self, key_id: KeyId, *, digest: str | None = None) -> bool:
        """Writes the key's committed state; False when it could not and the outbox will."""
        try:
            version = await self._write_key(key_id, digest)
            await outbox.mark_published(OutboxKind.KEY, uuid.UUID(key_id), version)
        except (RedisUnavailableError, StoreUnavailableError) as fault:
            return _pending("key", fault)
        return True

    async def publish_tenant(self, tenant_id: TenantId) -> bool:
        """Writes the tenant's committed state; False when it could not and the outbox will."""
        try:
            version = await self._write_tenant(tenant_id)
            await outbox.mark_published(OutboxKind.TENANT, uuid.UUID(tenant_id), version)
        except (RedisUnavailableError, StoreUnavailableError) as fault:
            return _pending("tenant", fault)
        return True

    async def publish_config(self) -> bool:
        """Writes the backends at the next revision; False when it could not and the outbox will."""
        try:
            await self._write_config()
        except (RedisUnavailableError, StoreUnavailableError) as fault:
            return _pending("config", fault)
        return True

    async def apply(self, change: Change) -> None:
        """Publishes what a row of the outbox speaks of. Raises ``RedisUnavailableError``, ``StoreUnavailableError``."""
        match change.kind:
            case OutboxKind.KEY:
                await self._write_key(KeyId(str(change.subject_id)), None)
            case OutboxKind.TENANT:
                await self._write_tenant(TenantId(str(change.subject_id)))
            case OutboxKind.CONFIG:
                await self._write_config()

    async def reconcile_config(self, *, static: bool) -> bool:
        """Writes the backends if Redis does not hold them; True when it had to. Raises as ``apply``.

        Without ``static`` only those that operators have added must be there: two replicas with different environments
        would otherwise undo each other's static backends for ever.
        """
        wanted = await self._backends.backends()
        published = await self._state.read_config()
        if published is not None and self._same(published.backends, wanted, static=static):
            return False
        await self._write_config()
        return True

    async def _write_key(self, key_id: KeyId, digest: str | None) -> int:
        key = await self._keys.get(key_id)
        await self._state.write_key(key, digest=digest)
        return key.version

    async def _write_tenant(self, tenant_id: TenantId) -> int:
        tenant = await self._tenants.get(tenant_id)
        await self._state.write_tenant(tenant)
        return tenant.version

    async def _write_config(self) -> None:
        # The revision first: of two publications at once, the one that read later must win.
        revision = await outbox.next_revision()
        backends = await self._backends.backends()
        await self._state.write_config(ConfigRecord(revision=revision, backends=tuple(backends)))
        _log.info("config_published", revision=revision, backends=len(backends))

    def _same(self, published: Sequence[BackendRecord], wanted: Sequence[BackendRecord], *, static: bool) -> bool:
        if not static:
            names = self._backends.static_names
            known = [backend.name for backend in wanted if backend.name not in names]
            published = [backend for backend in published if backend.name in known]
            wanted = [backend for backend in wanted if backend.name in known]
        # The same token sealed twice is two different texts. Ranks follow from the backends before.
        return [self._opened(backend, ranked=static) for backend in published] == [
            self._opened(backend, ranked=static) for backend in wanted
        ]

    def _opened(self, backend: BackendRecord, *, ranked: bool) -> tuple[object, ...]:
        token: object = None
        if backend.sealed_token is not None:
            try:
                token = self._sealer.open(backend.name, backend.sealed_token)
            except SealError:
                token = backend.sealed_token
        priority = backend.priority if ranked else None
        return backend.name, backend.url, priority, backend.header, backend.scheme, token

    def __repr__(self) -> str:
        return "StatePublisher()"


def _pending(kind: str, fault: Exception) -> bool:
    _log.warning("publication_deferred", kind=kind, fault=str(fault))
    return False
