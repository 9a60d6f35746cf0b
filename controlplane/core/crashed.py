"""What the ledger says of a request whose worker has died: everything that it had reserved. Pure rules."""

from __future__ import annotations

import msgspec

from shared import keyspace, layout, records
from shared.keyspace import KeyId, LeaseId, Scope, TenantId
from shared.layout import LayoutError
from shared.records import RecordError, UsageEvent

CRASHED_STATUS = 500
_EVENTS = records.decoder(UsageEvent)
_KEY, _TENANT = keyspace.key_scope(KeyId("")), keyspace.tenant_scope(TenantId(""))


class BrokenLeaseError(ValueError):
    """A lease whose string does not say whom it would be charged to, or how much."""


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


def crashed_lease(lease_id: LeaseId, raw: bytes | None) -> CrashedLease:
    """The lease that a string of Redis says. Raises ``BrokenLeaseError``."""
    try:
        found = layout.read_lease(raw or b"")
    except LayoutError as fault:
        raise BrokenLeaseError("a lease without its parts") from fault
    if not (found.key.startswith(_KEY) and found.tenant.startswith(_TENANT)):
        raise BrokenLeaseError("a lease of no key or no tenant")
    if found.prompt_bound > found.reserved:
        raise BrokenLeaseError("a lease with impossible numbers")
    return CrashedLease(
        lease_id=lease_id,
        key=found.key,
        tenant=found.tenant,
        day=found.day,
        month=found.month,
        reserved=found.reserved,
        prompt_bound=found.prompt_bound,
        admitted_at_ms=found.admitted_at_ms,
        prepared=found.prepared,
    )


def event_of(lease: CrashedLease, *, now_ms: int) -> UsageEvent:
    """Its usage event; of a lease that nothing else is known of, with what the lease says."""
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
