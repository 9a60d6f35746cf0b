"""Tells a rebuild what only this worker knows, when Redis may have lost it.

While a shard has no valid fence and the control plane has begun to rebuild it, the worker writes its events that the
ledger may not have, and the leases of its running requests, under the token of that rebuild. The rebuild waits for it
a moment; a worker that comes too late settles as always, and its events are charged then.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import batched

from dataplane.quota.calls import LEASE_RECORD_EXTRA_MS, LEASE_TTL_MS, TOMBSTONE_TTL_MS
from dataplane.quota.link import Link
from dataplane.quota.renewal import Renewal
from dataplane.quota.retained import RetainedEvent
from dataplane.quota.scripts import ANNOUNCE, Argument
from dataplane.quota.settlements import Settlements
from dataplane.values import Lease
from shared import keyspace, logs
from shared.keyspace import Scope, Shard

_PER_CALL = 200

log = logs.get(__name__)


class Announcements:
    """One worker's, under the id by which control planes know it."""

    def __init__(self, *, link: Link, settlements: Settlements, renewal: Renewal, worker_id: str) -> None:
        self._link = link
        self._settlements = settlements
        self._renewal = renewal
        self._worker_id = worker_id
        # Rebuilds that were told already, by their tokens.
        self._told: dict[Shard, bytes] = {}

    async def tell(self, missing: Sequence[Shard]) -> None:
        """Tells the rebuilds of shards without a valid fence. Raises ``CannotCheckError``."""
        tokens = await self._link.get(*(keyspace.rebuild_token(shard) for shard in missing))
        for shard, token in zip(missing, tokens, strict=True):
            if token is not None and self._told.get(shard) != token:
                await self._tell(shard, token)
                self._told[shard] = token

    async def look_at_ledger(self) -> None:
        """Forgets the events that the ledger has by now. Raises ``CannotCheckError``."""
        shards = [shard for shard in keyspace.SHARDS if any(True for _ in self._settlements.retained.of(shard))]
        if not shards:
            return
        watermarks = await self._link.get(*(keyspace.drained(shard) for shard in shards))
        for shard, watermark in zip(shards, watermarks, strict=True):
            self._settlements.retained.drained(shard, watermark)

    async def _tell(self, shard: Shard, token: bytes) -> None:
        events, leases = self._settlements.untold(shard), self._renewal.of(shard)
        parts: list[tuple[Sequence[RetainedEvent], Sequence[tuple[Lease, Scope, Scope]]]] = [
            *((some, ()) for some in batched(events, _PER_CALL)),
            *(((), some) for some in batched(leases, _PER_CALL)),
        ]
        for index, (some_events, some_leases) in enumerate(parts or [((), ())]):
            is_last = index + 1 >= len(parts)
            worker_id = self._worker_id if is_last else ""
            if not await self._send(shard, token, worker_id, some_events, some_leases):
                log.warning("announcement_came_late", shard=shard)
                return
        if parts:
            log.info("announced", shard=shard, events=len(events), leases=len(leases))

    async def _send(
        self,
        shard: Shard,
        token: bytes,
        worker_id: str,
        events: Sequence[RetainedEvent],
        leases: Sequence[tuple[Lease, Scope, Scope]],
    ) -> bool:
        keys = [
            keyspace.rebuild_token(shard),
            keyspace.fence(shard),
            keyspace.usage(shard),
            keyspace.expiry(shard),
            keyspace.announced(shard),
            *(keyspace.lease(shard, event.lease_id) for event in events),
        ]
        arguments: list[Argument] = [
            token,
            self._link.incarnation(shard),
            worker_id,
            LEASE_TTL_MS,
            LEASE_RECORD_EXTRA_MS,
            TOMBSTONE_TTL_MS,
            len(events),
            *(part for event in events for part in (event.raw, int(event.is_correction))),
        ]
        for lease, key, tenant in leases:
            keys += (
                keyspace.lease(shard, lease.lease_id),
                keyspace.leases(shard, key),
                keyspace.leases(shard, tenant),
            )
            reserved = lease.prompt_bound + lease.output_factor * lease.num_predict
            arguments += (
                lease.lease_id,
                key,
                tenant,
                lease.day,
                lease.month,
                reserved,
                lease.prompt_bound,
                lease.num_predict,
                lease.crashed,
            )
        reply = await self._link.call(shard, ANNOUNCE.call(keys, arguments))
        return bool(reply == b"announced")

    def __repr__(self) -> str:
        return f"Announcements({self._worker_id!r})"
