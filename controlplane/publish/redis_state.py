"""State in Redis as the control plane writes it: records and versions by compare-and-set.

A record is written before its entry in ``live``, so that whoever sees the version finds a record that is at least as
new. Nothing here can bring back an older state: a slow writer loses against a faster one.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from redis.asyncio import Redis

from controlplane.core.keys import Key
from controlplane.core.tenants import Tenant
from controlplane.publish.connection import translated
from shared import keyspace, records
from shared.keyspace import Scope, Shard
from shared.records import ConfigRecord, KeyRecord

_HERE = Path(__file__).parent
# Entries of one script, and scripts of one round trip.
LIVE_BATCH = 500
PIPELINE_BATCH = 500

_CONFIG = records.decoder(ConfigRecord)
_KEY = records.decoder(KeyRecord)


class RebuildToken(msgspec.Struct, frozen=True, kw_only=True):
    """The right to write rebuilt state: the token, and the server for which it was given (``run_id:replid:``)."""

    value: str
    incarnation: str


class RedisState:
    """Writes records, versions and backends. Every method raises ``RedisUnavailableError``."""

    def __init__(self, redis: Redis, *, timeout_s: float, prompt_log_days: int) -> None:
        self._redis = redis
        self._timeout_s = timeout_s
        self._prompt_log_days = prompt_log_days
        self._write_record = redis.register_script((_HERE / "write_record.lua").read_text())
        self._raise_live = redis.register_script((_HERE / "raise_live.lua").read_text())

    async def write_key(self, key: Key, *, digest: str | None = None) -> None:
        """Record, then version. Without a digest the one in Redis stays."""
        await self.write_keys([key], digests=[digest])

    async def write_tenant(self, tenant: Tenant) -> None:
        """Record, then version."""
        await self.write_tenants([tenant])

    async def write_keys(
        self, keys: Sequence[Key], *, digests: Sequence[str | None] | None = None, token: RebuildToken | None = None
    ) -> bool:
        """Many keys in few round trips; False when ``token`` is given and no longer good."""
        values = [
            (keyspace.key_record(key.prefix), key.record(self._prompt_log_days), key.version, digest or "")
            for key, digest in zip(keys, digests or [None] * len(keys), strict=True)
        ]
        await self._write_records(values)
        return await self._write_live(
            ((keyspace.shard_of(key.tenant_id), keyspace.key_scope(key.id), key.live_version) for key in keys), token
        )

    async def write_tenants(self, tenants: Sequence[Tenant], *, token: RebuildToken | None = None) -> bool:
        """Many tenants in few round trips; False when ``token`` is given and no longer good."""
        await self._write_records(
            [
                (keyspace.tenant_record(tenant.id), tenant.record(self._prompt_log_days), tenant.version, "")
                for tenant in tenants
            ]
        )
        return await self._write_live(
            (
                (keyspace.shard_of(tenant.id), keyspace.tenant_scope(tenant.id), tenant.live_version)
                for tenant in tenants
            ),
            token,
        )

    async def write_config(self, config: ConfigRecord) -> None:
        """Backends and model policies; an older revision changes nothing."""
        with translated():
            async with asyncio.timeout(self._timeout_s):
                await self._write_record(
                    keys=[keyspace.CONFIG], args=[records.encode(config), config.revision, "", "revision"]
                )

    async def read_config(self) -> ConfigRecord | None:
        """Both as published, None when there are none or they cannot be read."""
        raw = await self._get(keyspace.CONFIG)
        try:
            return None if raw is None else records.decode(_CONFIG, raw)
        except records.RecordError:
            return None

    async def read_key(self, prefix: str) -> KeyRecord | None:
        """The stored record of a key, None when there is none or it cannot be read."""
        raw = await self._get(keyspace.key_record(prefix))
        try:
            return None if raw is None else records.decode(_KEY, raw)
        except records.RecordError:
            return None

    async def ping(self) -> None:
        """One round trip."""
        with translated():
            async with asyncio.timeout(self._timeout_s):
                await self._redis.ping()

    async def _get(self, name: str) -> bytes | None:
        with translated():
            async with asyncio.timeout(self._timeout_s):
                raw = await self._redis.get(name)
        return raw.encode() if isinstance(raw, str) else raw

    async def _write_records(self, values: Sequence[tuple[str, msgspec.Struct, int, str]]) -> None:
        for start in range(0, len(values), PIPELINE_BATCH):
            with translated():
                async with asyncio.timeout(self._timeout_s), self._redis.pipeline(transaction=False) as pipe:
                    for name, record, version, digest in values[start : start + PIPELINE_BATCH]:
                        await self._write_record(
                            keys=[name], args=[records.encode(record), version, digest, "version"], client=pipe
                        )
                    await pipe.execute()

    async def _write_live(self, entries: Iterable[tuple[Shard, Scope, int]], token: RebuildToken | None) -> bool:
        by_shard: dict[Shard, list[Any]] = defaultdict(list)
        for shard, scope, version in entries:
            by_shard[shard] += [scope, version]
        head = ["", ""] if token is None else [token.value, token.incarnation]
        for shard, pairs in by_shard.items():
            keys = [keyspace.live(shard), keyspace.rebuild_token(shard), keyspace.fence(shard)]
            for start in range(0, len(pairs), 2 * LIVE_BATCH):
                with translated():
                    async with asyncio.timeout(self._timeout_s):
                        answer = await self._raise_live(keys=keys, args=[*head, *pairs[start : start + 2 * LIVE_BATCH]])
                if answer == -1:
                    return False
        return True

    def __repr__(self) -> str:
        return f"RedisState(timeout_s={self._timeout_s})"
