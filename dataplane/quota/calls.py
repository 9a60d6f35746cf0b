"""The calls of one principal, packed once but for what changes from request to request."""

from __future__ import annotations

from dataplane.quota.scripts import ABANDON, ACQUIRE, APPEND, CHECK, SETTLE, Call, bulk
from dataplane.values import Principal
from shared import keyspace
from shared.keyspace import SHARD_COUNT, KeyId, LeaseId

# A lease lives this long after it was taken or renewed, in milliseconds of Redis TIME.
LEASE_TTL_MS = 30_000
# The record of an open lease stays this much longer, so that the reaper still finds what to charge.
LEASE_RECORD_EXTRA_MS = 86_400_000
# A tombstone must outlast every repetition of a settlement that Redis has seen without our knowing.
TOMBSTONE_TTL_MS = 120_000
_MAX_PRINCIPALS = 16_384


class PrincipalCalls:
    """Packed calls of a principal at one version. ``backlog_max_events`` is the cap of its shard."""

    __slots__ = (
        "_abandon_keys",
        "_acquire_arguments",
        "_acquire_keys",
        "_append_keys",
        "_check_keys",
        "_deny_key",
        "_lease_key",
        "_settle_keys",
        "_standing",
    )

    def __init__(self, principal: Principal, backlog_max_events: int) -> None:
        shard = principal.shard
        key, tenant = keyspace.key_scope(principal.key_id), keyspace.tenant_scope(principal.tenant_id)
        fence, live, usage = keyspace.fence(shard), keyspace.live(shard), keyspace.usage(shard)
        self._deny_key = keyspace.deny(shard)
        slots = (keyspace.leases(shard, key), keyspace.leases(shard, tenant), keyspace.expiry(shard))
        self._lease_key = keyspace.lease(shard, "")
        self._check_keys = bulk(4, fence, live, usage, self._deny_key)
        self._acquire_keys = bulk(8, fence, live, usage, *slots)
        self._settle_keys = bulk(6, fence, usage, *slots)
        self._abandon_keys = bulk(4, *slots)
        self._append_keys = bulk(2, fence, usage)
        self._standing = bulk(
            key,
            tenant,
            principal.key_version,
            principal.tenant_version,
            principal.expires_at_ms,
            backlog_max_events,
        )
        self._acquire_arguments = self._standing + bulk(
            _limit(principal.key_limits.concurrent),
            _limit(principal.tenant_limits.concurrent),
            LEASE_TTL_MS,
            LEASE_RECORD_EXTRA_MS,
        )

    def acquire(self, incarnation: bytes, lease_id: LeaseId) -> Call:
        """``acquire.lua``."""
        dynamic = bulk(self._lease_key + lease_id, self._deny_key, incarnation)
        tail = b"".join((self._acquire_keys, dynamic, self._acquire_arguments, bulk(lease_id)))
        return Call(ACQUIRE, 8 + 12, tail)

    def check(self, incarnation: bytes) -> Call:
        """``check.lua``."""
        return Call(CHECK, 4 + 7, b"".join((self._check_keys, bulk(incarnation), self._standing)))

    def settle(self, incarnation: bytes, lease_id: LeaseId, event: bytes) -> Call:
        """``settle.lua``."""
        dynamic = bulk(self._lease_key + lease_id, incarnation, lease_id, event, TOMBSTONE_TTL_MS)
        return Call(SETTLE, 6 + 4, self._settle_keys + dynamic)

    def abandon(self, lease_id: LeaseId) -> Call:
        """``abandon.lua``."""
        dynamic = bulk(self._lease_key + lease_id, lease_id, TOMBSTONE_TTL_MS)
        return Call(ABANDON, 4 + 2, self._abandon_keys + dynamic)

    def append(self, incarnation: bytes, event: bytes) -> Call:
        """``append.lua``."""
        return Call(APPEND, 2 + 2, self._append_keys + bulk(incarnation, event))


class Calls:
    """The packed calls of the principals seen lately.

    ``backlog_max_events`` is how many usage events may wait in all; each shard has an even part of it.
    """

    def __init__(self, *, backlog_max_events: int) -> None:
        self._shard_backlog_max_events = max(1, backlog_max_events // SHARD_COUNT)
        self._known: dict[tuple[KeyId, int, int], PrincipalCalls] = {}

    def of(self, principal: Principal) -> PrincipalCalls:
        """The calls of a principal; a new version of its key or tenant has new ones."""
        version = (principal.key_id, principal.key_version, principal.tenant_version)
        calls = self._known.get(version)
        if calls is None:
            if len(self._known) >= _MAX_PRINCIPALS:
                del self._known[next(iter(self._known))]
            calls = self._known[version] = PrincipalCalls(principal, self._shard_backlog_max_events)
        return calls

    def __repr__(self) -> str:
        return f"Calls({len(self._known)} principals)"


def _limit(concurrent: int | None) -> int:
    return -1 if concurrent is None else concurrent
