"""What the services ask of the world: small protocols, each named after what it gives.

The adapters are in ``controlplane.store`` (tenants, keys), ``controlplane.publish`` (publication) and
``controlplane.hashing``. Every call that leaves the process has a deadline inside the adapter and raises errors of
``controlplane.errors`` only.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Protocol

from controlplane.core.changes import Announced
from controlplane.core.keys import Key
from controlplane.core.tenants import Tenant
from shared.keyspace import KeyId, TenantId
from shared.records import BackendRecord


class Tenants(Protocol):
    """Tenants in Postgres."""

    async def create(self, tenant: Tenant) -> Tenant:
        """Commits a new tenant. Raises ``AlreadyExistsError``."""
        ...

    async def get(self, reference: str) -> Tenant:
        """By name or id. Raises ``NotFoundError``."""
        ...

    async def page(self, *, after: str, size: int) -> list[Tenant]:
        """Up to ``size`` tenants whose names follow ``after``, in order of their names."""
        ...

    async def change(self, reference: str, change: Callable[[Tenant, dt.datetime], Tenant]) -> Tenant:
        """Locks the tenant, applies ``change`` (given the time), commits with the next version if it differs.

        Raises ``NotFoundError`` and whatever ``change`` raises.
        """
        ...


class Keys(Protocol):
    """API keys in Postgres."""

    async def create(self, key: Key, hashed: str) -> Key:
        """Commits a new key. Raises ``AlreadyExistsError`` (prefix taken) or ``NotFoundError`` (no such tenant)."""
        ...

    async def get(self, reference: str) -> Key:
        """By prefix or id. Raises ``NotFoundError``."""
        ...

    async def page(
        self, *, tenant_id: TenantId | None, include_ended: bool, after: tuple[dt.datetime, KeyId] | None, size: int
    ) -> list[Key]:
        """Up to ``size`` keys in order of creation, after the one named."""
        ...

    async def change(self, reference: str, change: Callable[[Key, dt.datetime], Key]) -> Key:
        """Locks the key, applies ``change`` (given the time), commits with the next version if it differs."""
        ...

    async def rotate(
        self, reference: str, hashed: str, rotation: Callable[[Key, dt.datetime], tuple[Key, Key]]
    ) -> tuple[Key, Key]:
        """Locks the key and commits, at once, its successor and what becomes of it; gives both in this order."""
        ...

    async def find_hash(self, prefix: str) -> tuple[Key, str] | None:
        """A key with its Argon2id hash."""
        ...


class BackendSource(Protocol):
    """Where the backends that are published come from."""

    async def backends(self) -> Sequence[BackendRecord]:
        """All backends in routing order, tokens sealed. Raises ``StoreUnavailableError``."""
        ...


class Publisher(Protocol):
    """Makes committed changes hold on every replica."""

    async def publish_key(self, key_id: KeyId, *, digest: str | None = None) -> Announced:
        """Writes the key's committed state to Redis, then tells the watchers; what could not be done goes out later."""
        ...

    async def publish_tenant(self, tenant_id: TenantId) -> Announced:
        """The same for a tenant."""
        ...

    async def publish_config(self) -> Announced:
        """Writes backends and model policies to Redis at the next revision; the rest as above."""
        ...
