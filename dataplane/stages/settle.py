"""What a request leaves behind: one usage event, and its lease returned, exactly once, however it ended.

``OpenLease`` is held for the whole of a request. Its methods are synchronous and the first of them wins, so there is
no moment at which a cancellation could lose or double a settlement; what they start belongs to the worker.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import msgspec

from dataplane import events
from dataplane.errors import (
    AuthenticationError,
    CannotCheckError,
    ClientClosedError,
    ForbiddenError,
    GatewayError,
    LeaseLostError,
    LimitExceededError,
)
from dataplane.interrupt import Interrupt
from dataplane.ports import Meter, Observer, Refusals, Renewals, Settlements
from dataplane.values import Arrival, InferenceRequest, Lease, Principal, Usage
from shared import modelname
from shared.clock import Clock
from shared.records import Outcome, UsageEvent

# Of a request and its lease; whether it has to keep what was answered, for the prompt log.
MeterFactory = Callable[[InferenceRequest, Lease, bool], Meter]

CLIENT_CLOSED_STATUS = 499
_OK_STATUS = 200
_INTERNAL_STATUS = 500
_UNAVAILABLE_STATUS = 503
_NOTHING = Usage(prompt_tokens=0, completion_tokens=0, provenance="counted")
_encode_body = msgspec.json.Encoder().encode


class Settle:
    """The last stage."""

    def __init__(
        self,
        *,
        settlements: Settlements,
        refusals: Refusals,
        renewals: Renewals,
        meter: MeterFactory,
        observer: Observer,
        clock: Clock,
    ) -> None:
        self._settlements = settlements
        self._refusals = refusals
        self._renewals = renewals
        self._meter = meter
        self._observer = observer
        self._clock = clock

    def holding(
        self, lease: Lease, principal: Principal, arrival: Arrival, inference: InferenceRequest, interrupt: Interrupt
    ) -> OpenLease:
        """Takes charge of a lease until the end of the ``with`` block."""
        return OpenLease(
            lease=lease,
            principal=principal,
            arrival=arrival,
            inference=inference,
            interrupt=interrupt,
            meter=self._meter(inference, lease, principal.prompt_log_days is not None),
            settlements=self._settlements,
            renewals=self._renewals,
            observer=self._observer,
            clock=self._clock,
        )

    def refused(self, principal: Principal, arrival: Arrival, error: GatewayError, *, status: int) -> None:
        """An authenticated request was refused; repetitions may be counted into one row."""
        event = self._leaseless(principal, arrival, "refused", status, _refusal_of(error))
        self._observe(arrival, principal, event, status)
        self._refusals.add(principal, event)

    def listed(self, principal: Principal, arrival: Arrival) -> None:
        """A request that needs no lease was answered."""
        event = self._leaseless(principal, arrival, "completed", _OK_STATUS, "")
        self._observe(arrival, principal, event, _OK_STATUS)
        self._settlements.append(principal, event)

    def unauthenticated(self, arrival: Arrival, *, status: int) -> None:
        """A request without an acceptable key was refused; it has no tenant, and leaves no row here."""
        self._observe(arrival, None, None, status)

    def _observe(self, arrival: Arrival, principal: Principal | None, event: UsageEvent | None, status: int) -> None:
        duration_s = self._clock.monotonic() - arrival.started_s
        self._observer.request_ended(
            arrival=arrival, principal=principal, event=event, status=status, duration_s=duration_s
        )

    def _leaseless(
        self, principal: Principal, arrival: Arrival, outcome: Outcome, status: int, refusal: str
    ) -> UsageEvent:
        return events.of_request(
            principal,
            arrival,
            # Nothing is charged, so the day only has to agree with ``created_at_ms``.
            day=time.strftime("%Y%m%d", time.gmtime(arrival.created_at_ms / 1000)),
            outcome=outcome,
            status=status,
            duration_ms=_milliseconds(self._clock.monotonic() - arrival.started_s),
            refusal=refusal,
        )

    def __repr__(self) -> str:
        return f"Settle({self._settlements!r})"


class OpenLease:
    """A lease in use. Leaving the block without ``completed`` or ``failed`` settles it as what it looks like."""

    def __init__(
        self,
        *,
        lease: Lease,
        principal: Principal,
        arrival: Arrival,
        inference: InferenceRequest,
        interrupt: Interrupt,
        meter: Meter,
        settlements: Settlements,
        renewals: Renewals,
        observer: Observer,
        clock: Clock,
    ) -> None:
        self.meter = meter
        self._lease = lease
        self._principal = principal
        self._arrival = arrival
        self._inference = inference
        self._interrupt = interrupt
        self._settlements = settlements
        self._renewals = renewals
        self._observer = observer
        self._clock = clock
        self._settled = False

    def completed(self) -> None:
        """The final record has been seen."""
        self._settle("completed", _OK_STATUS)

    def failed(self, error: GatewayError, *, status: int) -> None:
        """The request ended with an error; ``status`` is what it would be answered with."""
        self._settle(_outcome_of(error), status)

    def __enter__(self) -> Self:
        self._renewals.hold(self._lease, self._principal, self._interrupt)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._settled:
            return
        reason = self._interrupt.reason
        if error is None and self.meter.complete:
            self.completed()
        elif reason is not None:
            if isinstance(reason, ClientClosedError):
                self._settle("client_closed", CLIENT_CLOSED_STATUS)
            else:
                self._settle("cut", _UNAVAILABLE_STATUS)
        elif isinstance(error, asyncio.CancelledError):
            # Nobody but the worker itself cancels without a reason: it is going down.
            self._settle("cut", _UNAVAILABLE_STATUS)
        else:
            self._settle("crashed", _INTERNAL_STATUS)

    def _settle(self, outcome: Outcome, status: int) -> None:
        if self._settled:
            return
        self._settled = True
        self._renewals.release(self._lease)
        event = self._event(outcome, status)
        self._settlements.settle(self._lease, self._principal, event)
        self._observer.request_ended(
            arrival=self._arrival,
            principal=self._principal,
            event=event,
            status=status,
            duration_s=self._clock.monotonic() - self._arrival.started_s,
        )

    def _event(self, outcome: Outcome, status: int) -> UsageEvent:
        principal, arrival, meter = self._principal, self._arrival, self.meter
        # What no backend answered costs nothing, unless it was the client who did not wait for it.
        is_charged = meter.backend or outcome == "client_closed"
        usage = meter.usage() if is_charged else _NOTHING
        event = events.of_request(
            principal,
            arrival,
            day=self._lease.day,
            outcome=outcome,
            status=status,
            model=modelname.display(self._inference.canonical),
            backend=meter.backend,
            usage=usage,
            duration_ms=_milliseconds(self._clock.monotonic() - arrival.started_s),
            ttft_ms=meter.ttft_ms,
        )
        if principal.prompt_log_days is None:
            return event
        return msgspec.structs.replace(
            event,
            prompt_log_days=principal.prompt_log_days,
            prompt=_encode_body(self._inference.body).decode(),
            reply=meter.reply_text,
        )

    def __repr__(self) -> str:
        return f"OpenLease({self._lease.lease_id}, settled={self._settled})"


def _outcome_of(error: GatewayError) -> Outcome:
    if isinstance(error, ClientClosedError):
        return "client_closed"
    if isinstance(error, LeaseLostError):
        return "cut"
    return "refused" if isinstance(error, CannotCheckError) else "upstream_failed"


def _refusal_of(error: GatewayError) -> str:
    """The audit's word for a refusal, of a fixed list of ours."""
    match error:
        case AuthenticationError():
            return error.failure
        case ForbiddenError():
            return error.reason
        case LimitExceededError():
            return error.limit
        case _:
            return error.code


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
