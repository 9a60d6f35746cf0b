"""Rebuilds shards whose fence is gone or belongs to another run of the server, then stamps them.

Token first, then backends, records, versions, then the stamp: each write of a version and the stamp itself require the
token and no valid fence, so that neither a second rebuilder nor a FLUSHALL in between can leave half a state that is
believed. Digests are not in Postgres; those that Redis still has stay, the others return through ``KeyVerifier``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import asyncpg

from controlplane.errors import RedisUnavailableError, StoreUnavailableError
from controlplane.publish.fence import Fences, Server
from controlplane.publish.publisher import StatePublisher
from controlplane.publish.redis_state import RebuildToken, RedisState
from controlplane.store import engine
from controlplane.store.keys import PostgresKeys
from controlplane.store.ledger import SHARD_LOCKS
from controlplane.store.tenants import PostgresTenants
from shared import logs
from shared.clock import Clock
from shared.keyspace import SHARDS, Shard, shard_of

POLL_S = 0.3
LOCK_TIMEOUT_S = 10.0

_log = logs.get("controlplane.tasks.rebuild")


class FenceKeeper:
    """Watches the fences. Any number of replicas may: one rebuilds, the others find nothing left to do."""

    def __init__(
        self,
        *,
        fences: Fences,
        state: RedisState,
        publisher: StatePublisher,
        keys: PostgresKeys,
        tenants: PostgresTenants,
        clock: Clock,
        poll_s: float = POLL_S,
    ) -> None:
        self._fences = fences
        self._state = state
        self._publisher = publisher
        self._keys = keys
        self._tenants = tenants
        self._clock = clock
        self._poll_s = poll_s
        self._problems: tuple[str, ...] = ()

    async def run(self) -> None:
        """Watches until cancelled."""
        while True:
            try:
                await self.check_once()
            except (RedisUnavailableError, StoreUnavailableError) as fault:
                _log.debug("rebuild_waits", fault=str(fault))
            await asyncio.sleep(self._poll_s)

    async def check_once(self) -> int:
        """Rebuilds what is missing and says how many shards it stamped.

        Raises ``RedisUnavailableError``, ``StoreUnavailableError``; the next round tries again.
        """
        server = await self._fences.server()
        self._report(server)
        if server.problems or not await self._fences.missing(server.incarnation):
            return 0
        async with _all_shards_locked():
            # Whoever had the lock before may have done it.
            shards = await self._fences.missing(server.incarnation)
            return await self._rebuild(shards, server.incarnation) if shards else 0

    async def _rebuild(self, shards: Sequence[Shard], incarnation: str) -> int:
        started_s = self._clock.monotonic()
        token = await self._fences.begin(shards, incarnation)
        if not await self._write_everything(frozenset(shards), token):
            _log.warning("rebuild_lost_token", shards=len(shards))
            return 0
        stamped = 0
        for shard in shards:
            stamped += await self._fences.stamp(shard, token)
        _log.info("shards_rebuilt", shards=stamped, duration_ms=round((self._clock.monotonic() - started_s) * 1000))
        return stamped

    async def _write_everything(self, shards: frozenset[Shard], token: RebuildToken) -> bool:
        await self._publisher.reconcile_config()
        async for tenants in self._tenants.every():
            ours = [tenant for tenant in tenants if shard_of(tenant.id) in shards]
            if not await self._state.write_tenants(ours, token=token):
                return False
        async for keys in self._keys.every():
            ours_too = [key for key in keys if shard_of(key.tenant_id) in shards]
            if not await self._state.write_keys(ours_too, token=token):
                return False
        return True

    def _report(self, server: Server) -> None:
        if server.problems != self._problems:
            self._problems = server.problems
            _log.log(40 if server.problems else 20, "redis_settings_judged", problems=list(server.problems))


@contextlib.asynccontextmanager
async def _all_shards_locked() -> AsyncIterator[None]:
    """The shards' locks on a connection of their own; they go with it. Raises ``StoreUnavailableError``."""
    connection = await engine.new_connection()
    try:
        with engine.translated():
            # In one order, so that two rebuilders cannot hold what the other waits for.
            for number in range(len(SHARDS)):
                await connection.execute("SELECT pg_advisory_lock($1, $2)", SHARD_LOCKS, number, timeout=LOCK_TIMEOUT_S)
        yield
    finally:
        with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await connection.close(timeout=engine.CLOSE_TIMEOUT_S)
