"""The fence of each shard: proof that what Redis holds was rebuilt for exactly this run of this server.

Its value is ``<layout>:<run_id>:<master_replid>:<epoch>``. A restart changes the run id, a failover the replication id,
a release the layout, and FLUSHALL takes the fence away: in every case admission denies until the control plane has
rebuilt and stamped it anew.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from pathlib import Path

import msgspec
from redis.asyncio import Redis

from controlplane.publish.connection import translated
from controlplane.publish.redis_state import RebuildToken
from shared import keyspace, layout
from shared.keyspace import SHARDS, Shard

TOKEN_TTL_S = 60


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """What INFO says of the server: which run it is, and whether it may be trusted with admission."""

    incarnation: str
    is_primary: bool
    keeps_all: bool
    persists: bool
    # No replicas, or none that it may run ahead of.
    waits_for_replicas: bool

    @property
    def problems(self) -> tuple[str, ...]:
        """Why admission must not be decided on it; empty when it may."""
        rules = {
            "redis is a replica": self.is_primary,
            "redis evicts keys (maxmemory-policy must be noeviction)": self.keeps_all,
            "redis has no append-only file": self.persists,
            "redis has replicas but no min-replicas-to-write": self.waits_for_replicas,
        }
        return tuple(problem for problem, holds in rules.items() if not holds)


class Fences:
    """Reads and stamps fences. Every method raises ``RedisUnavailableError``."""

    def __init__(self, redis: Redis, *, timeout_s: float) -> None:
        self._redis = redis
        self._timeout_s = timeout_s
        self._extend = redis.register_script((Path(__file__).parent / "extend_lock.lua").read_text())
        self._stamp = redis.register_script((Path(__file__).parent / "stamp_fence.lua").read_text())

    async def server(self) -> Server:
        """The server as it is now."""
        with translated():
            async with asyncio.timeout(self._timeout_s):
                info = await self._redis.info("everything")
        return Server(
            incarnation=layout.incarnation(info["run_id"], info["master_replid"]),
            is_primary=info["role"] == "master",
            keeps_all=info["maxmemory_policy"] == "noeviction",
            persists=bool(info["aof_enabled"]),
            # The server names its good replicas only where it waits for some.
            waits_for_replicas=not info.get("connected_slaves") or "min_slaves_good_slaves" in info,
        )

    async def missing(self, incarnation: str) -> tuple[Shard, ...]:
        """Shards whose fence is not of this incarnation."""
        with translated():
            async with asyncio.timeout(self._timeout_s), self._redis.pipeline(transaction=False) as pipe:
                for shard in SHARDS:
                    pipe.get(keyspace.fence(shard))
                fences = await pipe.execute()
        expected = incarnation.encode()
        return tuple(
            shard
            for shard, fence in zip(SHARDS, fences, strict=True)
            if fence is None or not fence.startswith(expected)
        )

    async def begin(self, shards: Sequence[Shard], incarnation: str) -> RebuildToken:
        """Takes the right to rebuild these shards; whoever had it loses it."""
        token = RebuildToken(value=secrets.token_hex(16), incarnation=incarnation)
        with translated():
            async with asyncio.timeout(self._timeout_s), self._redis.pipeline(transaction=False) as pipe:
                for shard in shards:
                    pipe.set(keyspace.rebuild_token(shard), token.value, ex=TOKEN_TTL_S)
                await pipe.execute()
        return token

    async def keep(self, shards: Sequence[Shard], token: RebuildToken) -> bool:
        """Keeps the right to rebuild these shards for as long again; False when it is lost for one of them."""
        with translated():
            async with asyncio.timeout(self._timeout_s), self._redis.pipeline(transaction=False) as pipe:
                for shard in shards:
                    await self._extend(
                        keys=[keyspace.rebuild_token(shard)], args=[token.value, 1000 * TOKEN_TTL_S], client=pipe
                    )
                return all(await pipe.execute())

    async def announced(self, shards: Sequence[Shard], token: RebuildToken) -> frozenset[str]:
        """Workers that have told this rebuild all that they know of these shards."""
        with translated():
            async with asyncio.timeout(self._timeout_s), self._redis.pipeline(transaction=False) as pipe:
                for shard in shards:
                    pipe.hgetall(keyspace.announced(shard))
                answers = await pipe.execute()
        told = [{name for name, value in answer.items() if value == token.value.encode()} for answer in answers]
        return frozenset(name.decode() for name in set.intersection(*told)) if told else frozenset()

    async def stamp(self, shard: Shard, token: RebuildToken) -> bool:
        """Declares a shard rebuilt; False when the token is no longer good or somebody else has stamped it."""
        keys = [keyspace.fence(shard), keyspace.rebuild_token(shard)]
        with translated():
            async with asyncio.timeout(self._timeout_s):
                return bool(await self._stamp(keys=keys, args=[token.value, token.incarnation]))

    def __repr__(self) -> str:
        return f"Fences(timeout_s={self._timeout_s})"
