"""Brings committed changes to Redis: at once after a commit, and again for as long as it takes.

What is written is always the state that Postgres holds now, never the state that some change carried; repeating a
publication is harmless, and two of them in any order end the same.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import uuid
from collections.abc import Callable, Sequence
from typing import Protocol

from controlplane.core import changes
from controlplane.core.changes import Announced, ChangeKind
from controlplane.core.changes import Change as Told
from controlplane.core.keys import Key
from controlplane.errors import RedisUnavailableError, StoreUnavailableError
from controlplane.publish.redis_state import RedisState
from controlplane.store import outbox
from controlplane.store.backends import RoutedBackends
from controlplane.store.keys import PostgresKeys
from controlplane.store.outbox import Change, OutboxKind
from controlplane.store.policies import PostgresPolicies
from controlplane.store.tenants import PostgresTenants
from shared import logs, records
from shared.keyspace import KeyId, TenantId
from shared.records import BackendRecord, ConfigRecord
from shared.sealing import Sealer, SealError

_log = logs.get("controlplane.publish")


class Watchers(Protocol):
    """Those who are told of changes. Both methods give the change's revision and raise ``StoreUnavailableError``."""

    async def announce(self, change: Told) -> int:
        """Tells the watchers of every control plane. Raises ``RedisUnavailableError``."""
        ...

    async def tell(self, change: Told, *, config: bytes = b"") -> int:
        """Tells the watchers of this one what Redis lacks; ``config`` is the configuration, if it is this."""
        ...


class StatePublisher:
    """Publishes keys, tenants, backends and model policies, as ``controlplane.core.ports.Publisher`` says.

    Commit, next revision, Redis, watchers, in this order; only when Redis is away, the watchers hear of it before.
    """

    def __init__(
        self,
        *,
        keys: PostgresKeys,
        tenants: PostgresTenants,
        backends: RoutedBackends,
        policies: PostgresPolicies,
        state: RedisState,
        watchers: Watchers,
        sealer: Sealer,
        on_deferred: Callable[[], None] = lambda: None,
    ) -> None:
        self._keys = keys
        self._tenants = tenants
        self._backends = backends
        self._policies = policies
        self._state = state
        self._watchers = watchers
        self._sealer = sealer
        # Hears of each publication that is left to the outbox.
        self._on_deferred = on_deferred

    async def publish_key(self, key_id: KeyId, *, digest: str | None = None) -> Announced:
        """Writes the key's committed state and tells of it; what could not be written is left to the outbox."""
        try:
            key = await self._keys.get(key_id)
            change = _of_key(key)
            try:
                await self._state.write_key(key, digest=digest)
                revision = await self._watchers.announce(change)
            except RedisUnavailableError as fault:
                return await self._tell(change, fault)
        except StoreUnavailableError as fault:
            return self._pending("key", fault)
        return await _done(OutboxKind.KEY, key_id, key.version, revision)

    async def publish_tenant(self, tenant_id: TenantId) -> Announced:
        """Writes the tenant's committed state and tells of it; what could not be written is left to the outbox."""
        try:
            tenant = await self._tenants.get(tenant_id)
            change = changes.of_tenant(tenant)
            try:
                await self._state.write_tenant(tenant)
                revision = await self._watchers.announce(change)
            except RedisUnavailableError as fault:
                return await self._tell(change, fault)
        except StoreUnavailableError as fault:
            return self._pending("tenant", fault)
        return await _done(OutboxKind.TENANT, tenant_id, tenant.version, revision)

    async def publish_config(self) -> Announced:
        """Writes backends and policies at the next revision and tells of them; else the outbox will."""
        try:
            config = await self._next_config()
            try:
                revision = await self._write_config(config)
            except RedisUnavailableError as fault:
                return await self._tell(Told(kind=ChangeKind.CONFIG), fault, config=config)
        except StoreUnavailableError as fault:
            return self._pending("config", fault)
        return Announced(applied=True, revision=revision)

    async def tell_waiting(self, change: Change) -> None:
        """Tells the watchers here of a change that Redis does not have yet. Raises ``StoreUnavailableError``."""
        match change.kind:
            case OutboxKind.KEY:
                await self._watchers.tell(_of_key(await self._keys.get(str(change.subject_id))))
            case OutboxKind.TENANT:
                await self._watchers.tell(changes.of_tenant(await self._tenants.get(str(change.subject_id))))
            case OutboxKind.CONFIG:
                config = records.encode(await self._next_config())
                await self._watchers.tell(Told(kind=ChangeKind.CONFIG), config=config)

    async def apply(self, change: Change) -> None:
        """Publishes what a row of the outbox speaks of. Raises ``RedisUnavailableError``, ``StoreUnavailableError``."""
        match change.kind:
            case OutboxKind.KEY:
                key = await self._keys.get(str(change.subject_id))
                await self._state.write_key(key)
                await self._watchers.announce(_of_key(key))
            case OutboxKind.TENANT:
                tenant = await self._tenants.get(str(change.subject_id))
                await self._state.write_tenant(tenant)
                await self._watchers.announce(changes.of_tenant(tenant))
            case OutboxKind.CONFIG:
                await self._write_config(await self._next_config())

    async def reconcile_config(self, *, static: bool) -> bool:
        """Writes backends and policies if Redis does not hold them; True when it had to. Raises as ``apply``.

        Without ``static`` only the backends that operators have added must be there: two replicas with different
        environments would otherwise undo each other's static backends for ever.
        """
        wanted, policies = await self._backends.backends(), tuple(await self._policies.every())
        published = await self._state.read_config()
        if (
            published is not None
            and published.models == policies
            and self._same(published.backends, wanted, static=static)
        ):
            return False
        await self._write_config(await self._next_config())
        return True

    async def _next_config(self) -> ConfigRecord:
        # The revision first: of two publications at once, the one that read later must win.
        revision = await outbox.next_revision()
        backends, policies = await self._backends.backends(), await self._policies.every()
        return ConfigRecord(revision=revision, backends=tuple(backends), models=tuple(policies))

    async def _write_config(self, config: ConfigRecord) -> int:
        await self._state.write_config(config)
        revision = await self._watchers.announce(Told(kind=ChangeKind.CONFIG))
        _log.info(
            "config_published", revision=config.revision, backends=len(config.backends), policies=len(config.models)
        )
        return revision

    async def _tell(self, change: Told, fault: Exception, *, config: ConfigRecord | None = None) -> Announced:
        _log.warning("publication_deferred", kind=change.kind, fault=str(fault))
        raw = b"" if config is None else records.encode(config)
        return Announced(applied=False, revision=await self._watchers.tell(change, config=raw))

    def _pending(self, kind: str, fault: Exception) -> Announced:
        _log.warning("publication_deferred", kind=kind, fault=str(fault))
        self._on_deferred()
        return Announced(applied=False)

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
        return backend.name, backend.url, priority, backend.weight, backend.header, backend.scheme, token

    def __repr__(self) -> str:
        return "StatePublisher()"


def _of_key(key: Key) -> Told:
    return changes.of_key(key, has_ended=key.has_ended(dt.datetime.now(dt.UTC)))


async def _done(kind: OutboxKind, subject_id: str, version: int, revision: int) -> Announced:
    # It holds everywhere, whether or not it can be noted: the outbox would only repeat it.
    with contextlib.suppress(StoreUnavailableError):
        await outbox.mark_published(kind, uuid.UUID(subject_id), version, revision)
    return Announced(applied=True, revision=revision)
