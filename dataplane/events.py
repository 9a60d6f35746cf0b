"""Usage events of requests, as far as they are known before a request has ended. Pure."""

from __future__ import annotations

from typing import Any

from dataplane.values import Arrival, Principal
from shared.records import Outcome, UsageEvent


def of_request(
    principal: Principal, arrival: Arrival, *, day: str, outcome: Outcome, status: int, **more: Any
) -> UsageEvent:
    """The event of a request; its id is also that of its lease. ``more`` are further fields of ``UsageEvent``."""
    return UsageEvent(
        event_id=arrival.request_id,
        request_id=arrival.request_id,
        tenant_id=principal.tenant_id,
        key_id=principal.key_id,
        day=day,
        created_at_ms=arrival.created_at_ms,
        dialect=arrival.dialect,
        endpoint=arrival.endpoint,
        outcome=outcome,
        status=status,
        client_ip=arrival.client_ip,
        **more,
    )
