"""Every key that the gateway uses in Redis, and which shard it lives in.

Keys that one script touches carry the same hash tag, a fixed shard of the tenant id (``{s00}`` … ``{s15}``), so that a
Redis Cluster keeps them in one slot. Records are read one at a time and need no tag.
"""

from __future__ import annotations

import zlib
from typing import Literal, NewType

TenantId = NewType("TenantId", str)
KeyId = NewType("KeyId", str)
LeaseId = NewType("LeaseId", str)
Shard = NewType("Shard", str)
Scope = NewType("Scope", str)
Period = NewType("Period", str)

SHARD_COUNT = 16
SHARDS: tuple[Shard, ...] = tuple(Shard(f"s{number:02d}") for number in range(SHARD_COUNT))

CONFIG = "gateway:config"
MODELS_DISCOVERED = "gateway:models:discovered"
CHANGES = "gateway:changes"
REPLICAS = "gateway:replicas"

# Counted authentication failures of address blocks that wait for the audit log (stream, cut to its newest entries).
ANONYMOUS = "gateway:anonymous"

USAGE_GROUP = "drain"


def shard_of(tenant_id: TenantId) -> Shard:
    """The shard of a tenant: CRC-32 of its id modulo 16, the same in every release."""
    return SHARDS[zlib.crc32(tenant_id.encode()) % SHARD_COUNT]


def key_scope(key_id: KeyId) -> Scope:
    """The scope of limits and budgets of one API key."""
    return Scope(f"k:{key_id}")


def tenant_scope(tenant_id: TenantId) -> Scope:
    """The scope of limits and budgets of a whole tenant."""
    return Scope(f"t:{tenant_id}")


def key_record(prefix: str) -> str:
    """The record of an API key, by its prefix (string, ``records.KeyRecord``)."""
    return f"gateway:key:{prefix}"


def tenant_record(tenant_id: TenantId) -> str:
    """The record of a tenant (string, ``records.TenantRecord``)."""
    return f"gateway:tenant:{tenant_id}"


def live(shard: Shard) -> str:
    """Versions of keys and tenants (hash: scope → version, negative for one that is refused)."""
    return f"gateway:{{{shard}}}:live"


def fence(shard: Shard) -> str:
    """Proof that the shard holds rebuilt state (string: run id, replication id, epoch)."""
    return f"gateway:{{{shard}}}:fence"


def rebuild_token(shard: Shard) -> str:
    """Who may write rebuilt state and stamp the fence (string with TTL)."""
    return f"gateway:{{{shard}}}:rebuild"


def announced(shard: Shard) -> str:
    """Which workers have told a rebuild what Redis may have lost (hash with TTL: worker id → rebuild token)."""
    return f"gateway:{{{shard}}}:announced"


def window(shard: Shard, scope: Scope) -> str:
    """Sliding windows of requests and tokens without their head (string with TTL, packed)."""
    return f"gateway:{{{shard}}}:window:{scope}"


def counters(shard: Shard, scope: Scope) -> str:
    """What a scope has used and reserved, and the head of its windows (string, ``layout``)."""
    return f"gateway:{{{shard}}}:counters:{scope}"


def leases(shard: Shard, scope: Scope) -> str:
    """Slots in use (sorted set: lease id → expiry in milliseconds of Redis TIME)."""
    return f"gateway:{{{shard}}}:leases:{scope}"


def expiry(shard: Shard) -> str:
    """All leases of the shard by expiry, for the reaper (sorted set)."""
    return f"gateway:{{{shard}}}:expiry"


def lease(shard: Shard, lease_id: LeaseId | Literal[""]) -> str:
    """What a lease has reserved, or the tombstone of a settled one (string with TTL, ``layout``)."""
    return f"gateway:{{{shard}}}:lease:{lease_id}"


def usage(shard: Shard) -> str:
    """Usage events that wait for the ledger (stream)."""
    return f"gateway:{{{shard}}}:usage"


def drained(shard: Shard) -> str:
    """Up to which event the ledger has the shard's stream (string: stream id)."""
    return f"gateway:{{{shard}}}:drained"


def deny(shard: Shard) -> str:
    """Says that the waiting usage events of the shard have more bytes than they may (string; absent when they do not).

    The control plane sets and removes it. It has no TTL: only who drains the events knows that they have become fewer.
    """
    return f"gateway:{{{shard}}}:deny"


def auth_failures(block: str) -> str:
    """Failed authentications of an address block in the current window (string with TTL)."""
    return f"gateway:authfail:{block}"


def job_lock(job: str) -> str:
    """A short lock that keeps two control-plane replicas from doing the same job at once (string with TTL)."""
    return f"gateway:lock:{job}"
