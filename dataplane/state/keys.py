"""Resolving API keys: from memory, else from Redis, else (a record without a digest) by asking the control plane.

What is found here never authorises alone: admission compares the versions with the live ones. What is *not* found is
only believed while every fence is valid and the same before and after the look-up: a Redis that has lost its data
knows no key, and that is a reason to answer 503, not 401.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from dataclasses import dataclass
from typing import Protocol

from dataplane.errors import AuthenticationError, CannotCheckError
from dataplane.quota import fences
from dataplane.quota.link import Link
from dataplane.quota.refused import RefusedVersions
from dataplane.state.inheritance import principal_of
from dataplane.values import Limits, Principal
from shared import apikey, keyspace, logs, records
from shared.apikey import KeyPrefix
from shared.clock import Clock
from shared.keyspace import KeyId, TenantId
from shared.records import KeyRecord, KeyState, RecordError, TenantRecord, TenantState
from shared.redaction import Secret

MAX_CACHED_KEYS = 65_536

_KEY = records.decoder(KeyRecord)
_TENANT = records.decoder(TenantRecord)

log = logs.get(__name__)


class Verifier(Protocol):
    """Checks a key against its hash, slowly."""

    async def matches(self, api_key: str) -> bool:
        """Whether the key is right. Raises ``CannotCheckError`` when that cannot be known."""
        ...


@dataclass(slots=True)
class KeyCounts:
    """What has happened since the worker started, for its metrics."""

    hits: int = 0
    misses: int = 0
    verified: int = 0


@dataclass(slots=True)
class _Cached:
    principal: Principal
    until_s: float


class RedisKeys:
    """Implements ``ports.Keys``.

    ``ttl_s`` is how long a principal is kept, ``defaults`` are the limits of a tenant that sets none.
    """

    def __init__(
        self,
        *,
        link: Link,
        verifier: Verifier,
        refused: RefusedVersions,
        pepper: Secret,
        defaults: Limits,
        ttl_s: float,
        clock: Clock,
    ) -> None:
        self._link = link
        self._refused = refused
        self._verifier = verifier
        self._pepper = pepper.reveal().encode()
        self._defaults = defaults
        self._ttl_s = ttl_s
        self._clock = clock
        self.counts = KeyCounts()
        # Names in the cache mean nothing outside this process: keys are not kept, and nobody can aim at a slot.
        self._name_key = secrets.token_bytes(32)
        self._cache: dict[bytes, _Cached] = {}
        self._names: dict[KeyId, bytes] = {}
        self._pending: dict[bytes, asyncio.Future[Principal]] = {}

    def remembered(self, api_key: str) -> Principal | None:
        """See ``ports.Keys``."""
        return self._remembered(self._name_of(api_key))

    async def principal(self, api_key: str) -> Principal:
        """The principal of a key whose checksum is right. Raises ``AuthenticationError`` or ``CannotCheckError``."""
        name = self._name_of(api_key)
        if (remembered := self._remembered(name)) is not None:
            return remembered
        # Those who ask for the same key meanwhile share one answer; if the one who asks gives up, another does.
        while (pending := self._pending.get(name)) is not None:
            await asyncio.wait((pending,))
            if not pending.cancelled():
                return pending.result()
        self.counts.misses += 1
        return await self._resolved(name, api_key)

    async def refreshed(self, principal: Principal) -> Principal:
        """The principal read anew from Redis. Raises as ``principal`` does."""
        prefix = KeyPrefix(principal.key_prefix)
        name = self._names.get(principal.key_id)
        key = await self._key_record(prefix)
        if key.key_id != principal.key_id:
            raise AuthenticationError("unknown")
        fresh = await self._principal_of(key)
        if name is not None:
            self._keep(name, fresh)
        return fresh

    def forget_key(self, key_id: KeyId) -> None:
        """The key has changed: the next request reads it anew."""
        name = self._names.pop(key_id, None)
        if name is not None:
            del self._cache[name]

    def forget_tenant(self, tenant_id: TenantId) -> None:
        """The tenant has changed: the next request of each of its keys reads both anew."""
        principals = [cached.principal for cached in self._cache.values()]
        for principal in principals:
            if principal.tenant_id == tenant_id:
                self.forget_key(principal.key_id)

    def _name_of(self, api_key: str) -> bytes:
        return hashlib.blake2b(api_key.encode(), key=self._name_key, digest_size=16).digest()

    def _remembered(self, name: bytes) -> Principal | None:
        cached = self._cache.get(name)
        if cached is None or cached.until_s <= self._clock.monotonic():
            return None
        self.counts.hits += 1
        return cached.principal

    async def _resolved(self, name: bytes, api_key: str) -> Principal:
        pending = self._pending[name] = asyncio.get_running_loop().create_future()
        try:
            principal = await self._looked_up(api_key)
        except Exception as fault:
            pending.set_exception(fault)
            pending.exception()  # there may be nobody else who asks
            raise
        else:
            self._keep(name, principal)
            pending.set_result(principal)
            return principal
        finally:
            del self._pending[name]
            pending.cancel()

    async def _looked_up(self, api_key: str) -> Principal:
        prefix = apikey.prefix_of(api_key)
        key = await self._key_record(prefix)
        if key.digest is None:
            self.counts.verified += 1
            matches = await self._verifier.matches(api_key)
        else:
            matches = apikey.digests_equal(key.digest, apikey.digest(self._pepper, api_key))
        if not matches:
            raise AuthenticationError("mismatch")
        return await self._principal_of(key)

    async def _key_record(self, prefix: KeyPrefix) -> KeyRecord:
        raw = await self._certain(keyspace.key_record(prefix))
        if raw is None:
            raise AuthenticationError("unknown")
        try:
            return records.decode(_KEY, raw)
        except RecordError:
            log.exception("record_unreadable", kind="key", prefix=prefix)
            raise CannotCheckError("the record of a key is unreadable", reason="record") from None

    async def _principal_of(self, key: KeyRecord) -> Principal:
        raw = await self._certain(keyspace.tenant_record(key.tenant_id))
        if raw is None:
            raise CannotCheckError("the record of a tenant is missing", reason="record")
        try:
            tenant = records.decode(_TENANT, raw)
        except RecordError:
            log.exception("record_unreadable", kind="tenant", tenant_id=key.tenant_id)
            raise CannotCheckError("the record of a tenant is unreadable", reason="record") from None
        if key.state is not KeyState.ACTIVE:
            raise AuthenticationError("revoked" if key.state is KeyState.REVOKED else "suspended")
        if tenant.state is not TenantState.ACTIVE:
            raise AuthenticationError("suspended")
        principal = principal_of(key, tenant, self._defaults)
        if (refusal := self._refused.refusal_of(principal)) is not None:
            raise refusal
        return principal

    async def _certain(self, record: str) -> bytes | None:
        """A record, or the certainty that there is none: all fences hold, and nothing was rebuilt in between."""
        before = len(fences.KEYS)
        values = await self._link.get(*fences.KEYS, record, *fences.KEYS)
        if values[:before] != values[before + 1 :] or not fences.all_hold(self._link, values[:before]):
            raise CannotCheckError("Redis does not hold rebuilt state", reason="unfenced")
        return values[before]

    def _keep(self, name: bytes, principal: Principal) -> None:
        if len(self._cache) >= MAX_CACHED_KEYS and name not in self._cache:
            oldest = next(iter(self._cache))
            del self._names[self._cache.pop(oldest).principal.key_id]
        self._cache.pop(name, None)
        self._cache[name] = _Cached(principal, self._clock.monotonic() + self._ttl_s)
        self._names[principal.key_id] = name

    def __repr__(self) -> str:
        return f"RedisKeys(cached={len(self._cache)})"
