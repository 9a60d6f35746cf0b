"""The calls of one principal, packed once but for what changes from request to request."""

from __future__ import annotations

import struct

from dataplane.quota.scripts import ABANDON, ACQUIRE, APPEND, CHECK, CORRECT, SETTLE, Call, bulk
from dataplane.values import Demand, Lease, Limits, Principal
from shared import keyspace
from shared.keyspace import SHARD_COUNT, KeyId, LeaseId

# A lease lives this long after it was taken or renewed, in milliseconds of Redis TIME.
LEASE_TTL_MS = 30_000
# The record of an open lease stays this much longer, so that the reaper still finds what to charge.
LEASE_RECORD_EXTRA_MS = 86_400_000
# A tombstone must outlast every repetition of a settlement that Redis has seen without our knowing.
TOMBSTONE_TTL_MS = 120_000
_MAX_PRINCIPALS = 16_384
_TOMBSTONE_TTL = bulk(TOMBSTONE_TTL_MS)
# A bulk string with its length (see ``scripts.bulk``), and what the two calls of each request consist of.
_BULK = b"$%d\r\n%b\r\n"
_ACQUIRE = b"%b" + _BULK + b"%b" + _BULK + b"%b%b%b\r\n" + _BULK * 2
_CLOSING = b"%b" + _BULK * 4 + b"%b$24\r\n%b\r\n"
_THREE_DOUBLES = struct.Struct("<3d")
_FOUR_DOUBLES = struct.Struct("<4d")
_FOURTEEN_DOUBLES = struct.Struct("<14d")
_ACQUIRE_DOUBLES = (4 + 14 + 4) * 8


class PrincipalCalls:
    """Packed calls of a principal at one version. ``backlog_max_events`` is the cap of its shard."""

    __slots__ = (
        "_acquire_keys",
        "_append_keys",
        "_backlog_max_events",
        "_check_keys",
        "_close_keys",
        "_deny_key",
        "_known",
        "_known_and_limits",
        "_lease_key",
        "_scopes",
    )

    def __init__(self, principal: Principal, backlog_max_events: int) -> None:
        shard = principal.shard
        scopes = (keyspace.key_scope(principal.key_id), keyspace.tenant_scope(principal.tenant_id))
        fence, live, usage = keyspace.fence(shard), keyspace.live(shard), keyspace.usage(shard)
        deny_key = keyspace.deny(shard)
        kept = (
            *(keyspace.leases(shard, scope) for scope in scopes),
            keyspace.expiry(shard),
            *(keyspace.window(shard, scope) for scope in scopes),
            *(keyspace.counters(shard, scope) for scope in scopes),
        )
        self._lease_key = keyspace.lease(shard, "").encode()
        self._check_keys = bulk(4, fence, live, usage, deny_key)
        self._deny_key = bulk(deny_key)
        self._acquire_keys = bulk(12, fence, live, usage, *kept)
        self._close_keys = bulk(10, fence, usage, *kept)
        self._append_keys = bulk(3, fence, usage, deny_key)
        self._backlog_max_events = backlog_max_events
        known = (principal.key_version, principal.tenant_version, principal.expires_at_ms, backlog_max_events)
        self._scopes, packed = bulk(*scopes), _FOUR_DOUBLES.pack(*known)
        self._known = bulk(packed)
        # With what one request asks for behind it.
        limits = packed_limits(principal.key_limits, principal.tenant_limits)
        self._known_and_limits = b"$%d\r\n%b%b" % (_ACQUIRE_DOUBLES, packed, limits)

    def acquire(self, incarnation: bytes, lease_id: LeaseId, demand: Demand, crashed: bytes) -> Call:
        """``acquire.lua``."""
        asked = _FOUR_DOUBLES.pack(
            demand.prompt_bound, demand.prompt_estimate, demand.num_predict, demand.output_factor
        )
        lease = lease_id.encode()
        key = self._lease_key + lease
        tail = _ACQUIRE % (
            self._acquire_keys, len(key), key, self._deny_key, len(incarnation), incarnation, self._scopes,
            self._known_and_limits, asked, len(lease), lease, len(crashed), crashed,
        )  # fmt: skip
        return Call(ACQUIRE, 12 + 6, tail)

    def check(self, incarnation: bytes) -> Call:
        """``check.lua``."""
        return Call(CHECK, 4 + 4, b"".join((self._check_keys, bulk(incarnation), self._scopes, self._known)))

    def settle(self, incarnation: bytes, lease: Lease, event: bytes, tokens: int) -> Call:
        """``settle.lua``."""
        return Call(SETTLE, 10 + 5, self._closing(incarnation, lease, event, tokens))

    def correct(self, incarnation: bytes, lease: Lease, event: bytes, tokens: int) -> Call:
        """``correct.lua``; ``tokens`` are signed."""
        return Call(CORRECT, 10 + 5, self._closing(incarnation, lease, event, tokens))

    def abandon(self, incarnation: bytes, lease_id: LeaseId) -> Call:
        """``abandon.lua``."""
        dynamic = bulk(self._lease_key + lease_id.encode(), incarnation, lease_id, TOMBSTONE_TTL_MS)
        return Call(ABANDON, 10 + 3, self._close_keys + dynamic)

    def append(self, incarnation: bytes, event: bytes) -> Call:
        """``append.lua``."""
        return Call(APPEND, 3 + 3, self._append_keys + bulk(incarnation, event, self._backlog_max_events))

    def _closing(self, incarnation: bytes, lease: Lease, event: bytes, tokens: int) -> bytes:
        lease_id = lease.lease_id.encode()
        key = self._lease_key + lease_id
        charged = _THREE_DOUBLES.pack(tokens, int(lease.day), int(lease.month))
        return _CLOSING % (
            self._close_keys, len(key), key, len(incarnation), incarnation, len(lease_id), lease_id, len(event), event,
            _TOMBSTONE_TTL, charged,
        )  # fmt: skip


def packed_limits(key: Limits, tenant: Limits) -> bytes:
    """The limits of both scopes, and how long leases live, as ``acquire.lua`` reads them."""
    names = ("concurrent", "rpm", "tpm", "budget_day", "budget_month", "budget_total")
    values = (getattr(limits, name) for name in names for limits in (key, tenant))
    return _FOURTEEN_DOUBLES.pack(
        *(-1 if value is None else value for value in values), LEASE_TTL_MS, LEASE_RECORD_EXTRA_MS
    )


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
