"""Keeps the leases of running requests alive, and ends the requests whose leases are lost.

A lease lives 30 s of Redis TIME and is renewed when it is 10 s old, in one script per shard. A request is cut when the
script says so (its key or tenant was refused, its lease is gone), and in any case before its lease can have expired:
25 s, by the monotonic clock of this machine, after the last successful renewal was *sent*.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import batched

import msgspec

from dataplane.errors import CannotCheckError, KeyRefusedError, LeaseLostError
from dataplane.interrupt import Interrupt
from dataplane.quota.calls import LEASE_RECORD_EXTRA_MS, LEASE_TTL_MS
from dataplane.quota.link import Link
from dataplane.quota.refused import RefusedVersions
from dataplane.quota.scripts import RENEW
from dataplane.values import Lease, Principal
from shared import keyspace, logs
from shared.clock import Clock
from shared.keyspace import LeaseId, Scope, Shard

RENEW_AFTER_S = 10.0
CUT_AFTER_S = 25.0
TICK_S = 1.0
# Why a stream is cut whose key or tenant was suspended or revoked; the renewal script says it too.
REFUSED = "refused"
_LEASES_PER_CALL = 200

log = logs.get(__name__)


@dataclass(slots=True)
class RenewalCounts:
    """What has happened since the worker started, for its metrics."""

    renewed: int = 0
    cut: int = 0


class _Held(msgspec.Struct):
    lease: Lease
    key: Scope
    tenant: Scope
    key_version: int
    tenant_version: int
    interrupt: Interrupt
    renewed_s: float


class Renewal:
    """Implements ``ports.Renewals``; ``run`` does the work."""

    def __init__(self, *, link: Link, refused: RefusedVersions, clock: Clock) -> None:
        self._link = link
        self._refused = refused
        self._clock = clock
        self.counts = RenewalCounts()
        self._held: dict[LeaseId, _Held] = {}
        self._hastened = False

    def hold(self, lease: Lease, principal: Principal, interrupt: Interrupt) -> None:
        """Renews a lease from now on; ``interrupt`` ends its request when that is no longer possible."""
        held = self._held[lease.lease_id] = _Held(
            lease=lease,
            key=keyspace.key_scope(principal.key_id),
            tenant=keyspace.tenant_scope(principal.tenant_id),
            key_version=principal.key_version,
            tenant_version=principal.tenant_version,
            interrupt=interrupt,
            renewed_s=lease.taken_s,
        )
        # The word may have come while the admission was on its way.
        if self._refused.refusal_of(principal) is not None:
            self._cut(held, REFUSED)

    @property
    def held(self) -> int:
        """How many leases are in use."""
        return len(self._held)

    def of(self, shard: Shard) -> list[tuple[Lease, Scope, Scope]]:
        """The leases of a shard that are in use, each with the scopes of its key and its tenant."""
        return [(held.lease, held.key, held.tenant) for held in self._held.values() if held.lease.shard == shard]

    def release(self, lease: Lease) -> None:
        """The request is over; its lease is settled by somebody else."""
        self._held.pop(lease.lease_id, None)

    def cut(self, scope: Scope, version: int) -> int:
        """Ends the requests of a key or tenant that is refused since this version; gives how many there were."""
        refused = [
            held
            for held in self._held.values()
            if (held.key == scope and held.key_version <= version)
            or (held.tenant == scope and held.tenant_version <= version)
        ]
        for held in refused:
            self._cut(held, REFUSED)
        return len(refused)

    def hasten(self) -> None:
        """Asks about every lease at the next tick: something may have been missed."""
        self._hastened = True

    async def run(self) -> None:
        """Renews and cuts until it is cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            await self.tick()

    async def tick(self) -> None:
        """Renews what is old enough and cuts what cannot be renewed any more."""
        due: dict[Shard, list[_Held]] = {}
        now_s = self._clock.monotonic()
        hastened, self._hastened = self._hastened, False
        for held in self._held.values():
            if hastened or now_s - held.renewed_s >= RENEW_AFTER_S:
                due.setdefault(held.lease.shard, []).append(held)
        for shard, leases in due.items():
            for chunk in batched(leases, _LEASES_PER_CALL):
                await self._renew(shard, chunk)
        overdue_s = self._clock.monotonic() - CUT_AFTER_S + TICK_S
        for held in tuple(self._held.values()):
            if held.renewed_s <= overdue_s:
                self._cut(held, "it was not renewed in time")

    async def _renew(self, shard: Shard, leases: Sequence[_Held]) -> None:
        keys = [keyspace.fence(shard), keyspace.live(shard), keyspace.expiry(shard)]
        arguments: list[str] = []
        for held in leases:
            lease_id = held.lease.lease_id
            keys += (
                keyspace.leases(shard, held.key),
                keyspace.leases(shard, held.tenant),
                keyspace.lease(shard, lease_id),
            )
            arguments += (lease_id, held.key, held.tenant)
        sent_s = self._clock.monotonic()
        try:
            incarnation = self._link.incarnation(shard)
            call = RENEW.call(keys, (incarnation, LEASE_TTL_MS, LEASE_RECORD_EXTRA_MS, *arguments))
            reply = await self._link.call(shard, call)
        except CannotCheckError as fault:
            log.warning("renewal_failed", shard=shard, leases=len(leases), reason=fault.detail)
            return
        if reply[0] != b"renewed":
            log.warning("renewal_failed", shard=shard, leases=len(leases), reason=reply[0].decode())
            return
        for held in leases:
            held.renewed_s = sent_s
        self.counts.renewed += len(leases) - self._cut_named(reply[1:])

    def _cut_named(self, reply: Iterable[bytes]) -> int:
        cut = 0
        for lease_id, reason in batched(reply, 2):
            cut += 1
            # A lease that was settled while its renewal was under way is not held any more.
            held = self._held.get(LeaseId(lease_id.decode()))
            if held is not None:
                self._cut(held, reason.decode())
        return cut

    def _cut(self, held: _Held, reason: str) -> None:
        self.release(held.lease)
        self.counts.cut += 1
        log.warning("stream_cut", lease_id=held.lease.lease_id, reason=reason)
        held.interrupt.fire(KeyRefusedError(reason) if reason == REFUSED else LeaseLostError(reason))

    def __repr__(self) -> str:
        return f"Renewal({len(self._held)} leases)"
