"""Admission over the link: one script, one attempt, and everything that is not a clear yes is a no."""

from __future__ import annotations

import math
from typing import Protocol

from dataplane.errors import AuthenticationError, CannotCheckError, GatewayError, LimitExceededError
from dataplane.ports import StalePrincipalError
from dataplane.quota.calls import Calls
from dataplane.quota.link import Link
from dataplane.quota.refused import RefusedVersions
from dataplane.values import Lease, Principal, RequestId
from shared.clock import Clock
from shared.keyspace import LeaseId


class Buffer(Protocol):
    """Where settlements wait while Redis is away."""

    @property
    def is_full(self) -> bool:
        """Whether nothing more may be admitted, because its settlement might not find room."""
        ...


class RedisLeases:
    """Implements ``ports.Leases``."""

    def __init__(self, *, link: Link, calls: Calls, buffer: Buffer, refused: RefusedVersions, clock: Clock) -> None:
        self._link = link
        self._calls = calls
        self._buffer = buffer
        self._refused = refused
        self._clock = clock

    async def acquire(self, principal: Principal, request_id: RequestId) -> Lease:
        """Takes a slot of the key and one of the tenant. The request id becomes the lease id: it must be ours."""
        self._require_standing(principal)
        lease_id, shard = LeaseId(request_id), principal.shard
        calls = self._calls.of(principal)
        call = calls.acquire(self._link.incarnation(shard), lease_id)
        taken_s = self._clock.monotonic()
        decision, day, retry_after_ms = await self._link.call(shard, call, undo=lambda: calls.abandon(lease_id))
        if decision == b"admitted":
            return Lease(lease_id=lease_id, shard=shard, day=day.decode(), taken_s=taken_s)
        raise _refusal(decision, retry_after_ms)

    async def check(self, principal: Principal) -> None:
        """The same checks without a lease."""
        self._require_standing(principal)
        shard = principal.shard
        call = self._calls.of(principal).check(self._link.incarnation(shard))
        [decision] = await self._link.call(shard, call)
        if decision != b"allowed":
            raise _refusal(decision, 0)

    def _require_standing(self, principal: Principal) -> None:
        """Everything that needs no Redis to say no."""
        if (refusal := self._refused.refusal_of(principal)) is not None:
            raise refusal
        if self._buffer.is_full:
            raise CannotCheckError("the settlement buffer is full")

    def __repr__(self) -> str:
        return f"RedisLeases({self._link!r})"


def _refusal(decision: bytes, retry_after_ms: int) -> GatewayError | StalePrincipalError:
    """What a decision means for the request; the words are those of the scripts."""
    match decision:
        case b"stale":
            return StalePrincipalError()
        case b"key_refused":
            return AuthenticationError("revoked")
        case b"tenant_refused":
            return AuthenticationError("suspended")
        case b"expired":
            return AuthenticationError("expired")
        case b"concurrency":
            return LimitExceededError("concurrency", retry_after_s=math.ceil(retry_after_ms / 1000))
        case _:
            return CannotCheckError(f"admission said {decision.decode(errors='replace')}")
