"""What the ledger says of a request whose worker has died: everything that it had reserved. Pure rules."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from shared import keyspace, records
from shared.keyspace import KeyId, LeaseId, Scope, TenantId
from shared.records import RecordError, UsageEvent

CRASHED_STATUS = 500
_EVENTS = records.decoder(UsageEvent)
_KEY, _TENANT = keyspace.key_scope(KeyId("")), keyspace.tenant_scope(TenantId(""))


class BrokenLeaseError(ValueError):
    """A lease whose fields do not say whom it would be charged to, or how much."""


class CrashedLease(msgspec.Struct, frozen=True, kw_only=True):
    """A lease whose time is over."""

    lease_id: LeaseId
    key: Scope
    tenant: Scope
    day: str
    month: str
    reserved: int
    # Of these the most that its prompt can have been.
    prompt_bound: int
    # When it was admitted by the server's clock, in milliseconds; 0 when that is not known.
    admitted_at_ms: int = 0
    # The event that its worker wrote for this case, without a day and without tokens.
    prepared: bytes = b""


def crashed_lease(lease_id: LeaseId, fields: Mapping[bytes, bytes]) -> CrashedLease:
    """The lease of a hash. Raises ``BrokenLeaseError``."""
    try:
        lease = CrashedLease(
            lease_id=lease_id,
            key=Scope(fields[b"k"].decode()),
            tenant=Scope(fields[b"t"].decode()),
            day=fields[b"p"].decode(),
            month=fields[b"m"].decode(),
            reserved=int(fields[b"r"]),
            prompt_bound=int(fields.get(b"b", b"0")),
            admitted_at_ms=int(fields.get(b"a", b"0")),
            prepared=fields.get(b"e", b""),
        )
    except (KeyError, ValueError) as fault:
        raise BrokenLeaseError("a lease without its fields") from fault
    if not (lease.key.startswith(_KEY) and lease.tenant.startswith(_TENANT)):
        raise BrokenLeaseError("a lease of no key or no tenant")
    if not 0 <= lease.prompt_bound <= lease.reserved or not (lease.day.isdigit() and lease.month.isdigit()):
        raise BrokenLeaseError("a lease with impossible numbers")
    return lease


def event_of(lease: CrashedLease, *, now_ms: int) -> UsageEvent:
    """Its usage event; of a lease that nothing else is known of, with what its hash says."""
    try:
        prepared = records.decode(_EVENTS, lease.prepared)
    except RecordError:
        prepared = UsageEvent(
            event_id=lease.lease_id,
            request_id=lease.lease_id,
            tenant_id=TenantId(lease.tenant.removeprefix(_TENANT)),
            key_id=KeyId(lease.key.removeprefix(_KEY)),
            day=lease.day,
            created_at_ms=lease.admitted_at_ms or now_ms,
            dialect="",
            endpoint="",
            outcome="crashed",
            status=CRASHED_STATUS,
        )
    return msgspec.structs.replace(
        prepared,
        event_id=lease.lease_id,
        day=lease.day,
        outcome="crashed",
        provenance="estimated",
        prompt_tokens=lease.prompt_bound,
        completion_tokens=lease.reserved - lease.prompt_bound,
        duration_ms=max(0, now_ms - lease.admitted_at_ms) if lease.admitted_at_ms else 0,
    )
