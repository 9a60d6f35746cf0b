"""Usage events of requests, as far as they are known before a request has ended. Pure."""

from __future__ import annotations

from dataplane.values import Arrival, Principal, Usage
from shared.records import Outcome, UsageEvent

NOTHING_USED = Usage(prompt_tokens=0, completion_tokens=0, provenance="reported")


def of_request(
    principal: Principal,
    arrival: Arrival,
    *,
    day: str,
    outcome: Outcome,
    status: int,
    model: str = "",
    backend: str = "",
    usage: Usage = NOTHING_USED,
    duration_ms: int = 0,
    ttft_ms: int | None = None,
    refusal: str = "",
) -> UsageEvent:
    """The event of a request; its id is also that of its lease."""
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
        model=model,
        backend=backend,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        provenance=usage.provenance,
        duration_ms=duration_ms,
        ttft_ms=ttft_ms,
        refusal=refusal,
    )
