"""What the control plane would have written to Redis, written by a test: functions, fences, versions, records."""

from __future__ import annotations

import uuid
from typing import Any

import redis as redis_client
from redis.exceptions import ResponseError

from dataplane.values import Grant, Limits, Principal
from shared import apikey, keyspace, layout, records
from shared.apikey import Digest
from shared.keyspace import KeyId, TenantId
from shared.quota.library import LIBRARY, Library
from shared.records import ConfigRecord, DiscoveredRecord, KeyRecord, TenantRecord

PEPPER = "a pepper for tests only"


class PublishedState:
    """Writes published state into one Redis."""

    def __init__(self, url: str) -> None:
        self.url = url
        # Any: the client's own annotations mix its synchronous and asynchronous answers.
        self.client: Any = redis_client.Redis.from_url(url)

    def close(self) -> None:
        self.client.close()

    def stamp(self, epoch: int = 1) -> None:
        """Loads the functions and stamps every shard for the server as it is now."""
        self.load()
        info = self.client.info()
        fence = f"{layout.incarnation(info['run_id'], info['master_replid'])}{epoch}"
        for shard in keyspace.SHARDS:
            self.client.set(keyspace.fence(shard), fence)

    def load(self, library: Library = LIBRARY) -> None:
        """Loads a library of functions, unless it is there."""
        try:
            self.client.function_load(library.source)
        except ResponseError as fault:
            if not library.is_there(fault):
                raise

    def libraries(self) -> set[str]:
        """Names of the libraries that the server has."""
        return {one[1].decode() for one in self.client.function_list()}

    def principal(self, *, concurrent: int | None = 8, tenant_concurrent: int | None = 8, **fields: Any) -> Principal:
        """A principal whose key and tenant are live at version 1; nothing but the versions is in Redis."""
        tenant_id = fields.pop("tenant_id", TenantId(str(uuid.uuid4())))
        made = Principal(
            key_id=KeyId(str(uuid.uuid4())),
            key_prefix="nz_000000000",
            tenant_id=tenant_id,
            tenant_name="acme",
            shard=keyspace.shard_of(tenant_id),
            key_version=1,
            tenant_version=1,
            expires_at_ms=fields.pop("expires_at_ms", 0),
            key_limits=fields.pop("key_limits", Limits(rpm=None, tpm=None, concurrent=concurrent)),
            tenant_limits=fields.pop("tenant_limits", Limits(rpm=None, tpm=None, concurrent=tenant_concurrent)),
            grant=Grant(all_models=True),
            prompt_log_days=fields.pop("prompt_log_days", None),
        )
        self.live(made, key=1, tenant=1)
        return made

    def live(self, principal: Principal, *, key: int | None = None, tenant: int | None = None) -> None:
        """Sets live versions; negative ones refuse."""
        name = keyspace.live(principal.shard)
        if key is not None:
            self.client.hset(name, keyspace.key_scope(principal.key_id), key)
        if tenant is not None:
            self.client.hset(name, keyspace.tenant_scope(principal.tenant_id), tenant)

    def key(self, *, tenant: dict[str, Any] | None = None, with_digest: bool = True, **fields: Any) -> str:
        """Mints a key of a new tenant and publishes both; ``fields`` are of the key's record."""
        api_key = apikey.mint(PEPPER.encode())
        tenant_id = TenantId(str(uuid.uuid4()))
        self.tenant(tenant_id, **(tenant or {}))
        self.record(api_key, tenant_id=tenant_id, with_digest=with_digest, **fields)
        return api_key

    def tenant(self, tenant_id: TenantId, **fields: Any) -> TenantRecord:
        record = TenantRecord(tenant_id=tenant_id, name="acme", **{"version": 1, **fields})
        self.client.set(keyspace.tenant_record(tenant_id), records.encode(record))
        shard = keyspace.shard_of(tenant_id)
        self.client.hset(keyspace.live(shard), keyspace.tenant_scope(tenant_id), record.version)
        return record

    def record(
        self,
        api_key: str,
        *,
        tenant_id: TenantId,
        with_digest: bool = True,
        digest: Digest | None = None,
        **fields: Any,
    ) -> KeyRecord:
        prefix = apikey.prefix_of(api_key)
        own = digest or apikey.digest(PEPPER.encode(), api_key)
        record = KeyRecord(
            tenant_id=tenant_id,
            prefix=prefix,
            digest=own if with_digest else None,
            **{"key_id": KeyId(str(uuid.uuid5(uuid.NAMESPACE_OID, prefix))), "version": 1, **fields},
        )
        self.client.set(keyspace.key_record(prefix), records.encode(record))
        shard = keyspace.shard_of(tenant_id)
        self.client.hset(keyspace.live(shard), keyspace.key_scope(record.key_id), record.version)
        return record

    def models(self, config: ConfigRecord, discovered: DiscoveredRecord, *, ttl_ms: int = 60_000) -> None:
        self.client.set(keyspace.CONFIG, records.encode(config))
        self.client.set(keyspace.MODELS_DISCOVERED, records.encode(discovered), px=ttl_ms)

    def usage(self, principal: Principal) -> list[bytes]:
        """The events that wait in the principal's shard."""
        return [fields[b"e"] for _, fields in self.client.xrange(keyspace.usage(principal.shard))]

    def budgets(self, principal: Principal) -> dict[str, tuple[int, int]]:
        """Used and reserved of every counter of the principal: ``key total``, ``tenant 202611``, …"""
        found = {}
        for kind, scope in (
            ("key", keyspace.key_scope(principal.key_id)),
            ("tenant", keyspace.tenant_scope(principal.tenant_id)),
        ):
            counters = layout.read_counters(self.client.get(keyspace.counters(principal.shard, scope)))
            for period, counter in counters.items():
                found[f"{kind} {period}"] = (counter.used, counter.reserved)
        return found

    def slots(self, principal: Principal) -> tuple[int, int, int]:
        """Leases of the key, of the tenant and of the shard."""
        shard = principal.shard
        return (
            self.client.zcard(keyspace.leases(shard, keyspace.key_scope(principal.key_id))),
            self.client.zcard(keyspace.leases(shard, keyspace.tenant_scope(principal.tenant_id))),
            self.client.zcard(keyspace.expiry(shard)),
        )
