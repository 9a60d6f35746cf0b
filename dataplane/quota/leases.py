"""Admission over the link: one script, one attempt, and everything that is not a clear yes is a no."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from dataplane.errors import (
    AuthenticationError,
    CannotCheckError,
    GatewayError,
    LimitExceededError,
    LimitName,
    Unchecked,
)
from dataplane.ports import StalePrincipalError
from dataplane.quota.calls import Calls
from dataplane.quota.link import Link
from dataplane.quota.refused import RefusedVersions
from dataplane.rates import RateLimit, Rates
from dataplane.values import Demand, Lease, Principal, RequestId
from shared.clock import Clock
from shared.keyspace import LeaseId, Shard

_LIMITS: Mapping[bytes, LimitName] = {
    b"requests": "requests",
    b"tokens": "tokens",
    b"concurrency": "concurrency",
    b"budget_day": "budget_day",
    b"budget_month": "budget_month",
    b"budget_total": "budget_total",
}
_UNCHECKED: Mapping[bytes, Unchecked] = {b"unfenced": "unfenced", b"missing": "missing", b"backlog": "backlog"}
_MINUTE_MS = 60_000
# What ``acquire.lua`` answers beside its decision.
_NUMBERS = struct.Struct("<11q")
_NO_NUMBERS = (0,) * 11
_UNKNOWN_INCARNATION = b"unknown"


class Buffer(Protocol):
    """Where settlements wait while Redis is away."""

    @property
    def is_full(self) -> bool:
        """Whether nothing more may be admitted, because its settlement might not find room."""
        ...


class RedisLeases:
    """Implements ``ports.Leases``."""

    def __init__(
        self,
        *,
        link: Link,
        calls: Calls,
        buffer: Buffer,
        refused: RefusedVersions,
        clock: Clock,
        on_answer: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._link = link
        self._calls = calls
        self._buffer = buffer
        self._refused = refused
        self._clock = clock
        # Hears how many seconds Redis took to answer an admission.
        self._on_answer = on_answer

    async def acquire(self, principal: Principal, request_id: RequestId, demand: Demand, crashed: bytes) -> Lease:
        """See ``ports.Leases``. The request id becomes the lease id: it must be ours."""
        self._require_standing(principal)
        lease_id, shard = LeaseId(request_id), principal.shard
        calls = self._calls.of(principal)
        call = calls.acquire(self._link.incarnation(shard), lease_id, demand, crashed)
        taken_s = self._clock.monotonic()
        reply = await self._link.call(shard, call, undo=lambda: calls.abandon(self._incarnation_now(shard), lease_id))
        self._on_answer(self._clock.monotonic() - taken_s)
        decision, numbers = read_reply(reply)
        if decision != b"admitted":
            raise _refusal(principal, decision, numbers)
        day, month, num_predict = numbers[8:]
        return Lease(
            lease_id=lease_id,
            shard=shard,
            day=str(day),
            month=str(month),
            prompt_bound=demand.prompt_bound,
            num_predict=num_predict,
            output_factor=demand.output_factor,
            rates=_rates(principal, numbers),
            crashed=crashed,
            taken_s=taken_s,
        )

    async def check(self, principal: Principal) -> None:
        """The same checks without a lease."""
        self._require_standing(principal)
        shard = principal.shard
        call = self._calls.of(principal).check(self._link.incarnation(shard))
        decision = await self._link.call(shard, call)
        if decision != b"allowed":
            raise _refusal(principal, decision)

    def _require_standing(self, principal: Principal) -> None:
        """Everything that needs no Redis to say no."""
        if (refusal := self._refused.refusal_of(principal)) is not None:
            raise refusal
        if self._buffer.is_full:
            raise CannotCheckError("the settlement buffer is full", reason="settlement_buffer")

    def _incarnation_now(self, shard: Shard) -> bytes:
        """What an undo says when it is sent."""
        try:
            return self._link.incarnation(shard)
        except CannotCheckError:
            return _UNKNOWN_INCARNATION

    def __repr__(self) -> str:
        return f"RedisLeases({self._link!r})"


def read_reply(reply: bytes) -> tuple[bytes, Sequence[int]]:
    """The decision of ``acquire.lua`` and its numbers, all 0 where it gives none."""
    decision, _, numbers = reply.partition(b" ")
    return decision, _NUMBERS.unpack(numbers) if numbers else _NO_NUMBERS


def _refusal(
    principal: Principal, decision: bytes, numbers: Sequence[int] = _NO_NUMBERS
) -> GatewayError | StalePrincipalError:
    """What a decision means for the request; the words are those of the scripts."""
    if decision in _LIMITS:
        return LimitExceededError(
            _LIMITS[decision],
            retry_after_s=max(1, math.ceil(numbers[0] / 1000)),
            exhausted=bool(numbers[1]),
            rates=_rates(principal, numbers),
        )
    match decision:
        case b"stale":
            return StalePrincipalError()
        case b"key_refused":
            return AuthenticationError("revoked")
        case b"tenant_refused":
            return AuthenticationError("suspended")
        case b"expired":
            return AuthenticationError("expired")
        case _:
            return CannotCheckError(
                f"admission said {decision.decode(errors='replace')}", reason=_UNCHECKED.get(decision)
            )


def _rates(principal: Principal, numbers: Sequence[int]) -> Rates:
    key_requests, key_tokens, tenant_requests, tenant_tokens, key_idle_ms, tenant_idle_ms = numbers[2:8]
    key, tenant = principal.key_limits, principal.tenant_limits
    return Rates(
        _rate(key.rpm, key_requests, key_idle_ms)
        if _is_tighter(key.rpm, key_requests, tenant.rpm, tenant_requests)
        else _rate(tenant.rpm, tenant_requests, tenant_idle_ms),
        _rate(key.tpm, key_tokens, key_idle_ms)
        if _is_tighter(key.tpm, key_tokens, tenant.tpm, tenant_tokens)
        else _rate(tenant.tpm, tenant_tokens, tenant_idle_ms),
    )


def _is_tighter(limit: int | None, counted: int, other: int | None, counted_by_other: int) -> bool:
    """Whether of a limit no more is left than of the other."""
    return limit is not None and (other is None or limit - counted <= other - counted_by_other)


def _rate(limit: int | None, counted: int, idle_ms: int) -> RateLimit | None:
    """A limit per minute with what is counted and the milliseconds since its latest request."""
    if limit is None:
        return None
    reset_s = -((idle_ms - _MINUTE_MS) // 1000) if counted and idle_ms < _MINUTE_MS else 0
    return RateLimit(limit, limit - counted if counted < limit else 0, reset_s)
