"""May this request enter now? The model and its policy, then everything that one script in Redis decides.

A principal may be older than what is live: then its record is read once more and everything is decided anew, with the
new grants and limits. A record that is still behind cannot be checked.
"""

from __future__ import annotations

import msgspec

from dataplane import bounds, events, policy
from dataplane.capabilities import unsupported
from dataplane.errors import CannotCheckError, ForbiddenError, LimitExceededError, RequestError
from dataplane.native import EmbedBody
from dataplane.ports import Keys, Leases, Models, StalePrincipalError
from dataplane.values import Arrival, Demand, InferenceRequest, Lease, Principal, Usage
from shared import modelname, records

_INTERNAL_STATUS = 500
# The reaper adds how much.
_ESTIMATED = Usage(prompt_tokens=0, completion_tokens=0, provenance="estimated")


class Admit:
    """The second stage."""

    def __init__(self, *, leases: Leases, keys: Keys, models: Models) -> None:
        self._leases = leases
        self._keys = keys
        self._models = models

    async def __call__(
        self, principal: Principal, arrival: Arrival, inference: InferenceRequest
    ) -> tuple[Principal, Lease, InferenceRequest]:
        """A lease, the principal that it was given to, and the request as policy and lease have it.

        Raises ``ForbiddenError`` for a model that is not there or not granted, ``RequestError`` for what it cannot do,
        ``AuthenticationError`` for a key or tenant that is refused by now, ``LimitExceededError`` and
        ``CannotCheckError``.
        """
        try:
            return await self._acquire(principal, arrival, inference)
        except StalePrincipalError:
            principal = await self._keys.refreshed(principal)
        try:
            return await self._acquire(principal, arrival, inference)
        except StalePrincipalError:
            raise _still_stale() from None

    async def check(self, principal: Principal) -> Principal:
        """The same for requests that take no lease. Raises as above, but for models and limits."""
        try:
            await self._leases.check(principal)
        except StalePrincipalError:
            principal = await self._keys.refreshed(principal)
        else:
            return principal
        try:
            await self._leases.check(principal)
        except StalePrincipalError:
            raise _still_stale() from None
        return principal

    async def _acquire(
        self, principal: Principal, arrival: Arrival, inference: InferenceRequest
    ) -> tuple[Principal, Lease, InferenceRequest]:
        try:
            decided, demand = self._demand(principal, inference)
        except (ForbiddenError, RequestError, LimitExceededError):
            # Also a refusal has to be true: a revoked key learns nothing about models.
            await self._leases.check(principal)
            raise
        crashed = _crashed(principal, arrival, decided)
        lease = await self._leases.acquire(principal, arrival.request_id, demand, crashed)
        return principal, lease, _granted(decided, lease.num_predict)

    def _demand(self, principal: Principal, inference: InferenceRequest) -> tuple[InferenceRequest, Demand]:
        """The request as the model's policy has it and what to reserve, if the model may be used and can do it."""
        model = self._models.resolve(principal.grant, inference.canonical)
        if model is None:
            raise ForbiddenError("model_not_allowed")
        if (decided := self._models.policy(model.canonical)) is not None:
            inference = policy.applied(inference, decided)
        if (lacking := unsupported(inference, model)) is not None:
            raise RequestError(lacking)
        candidates = self._models.candidates(inference.canonical)
        demand = bounds.demand_of(inference, [candidate.model for candidate in candidates])
        return inference, bounds.lowered_to_rates(demand, principal.key_limits, principal.tenant_limits)

    def __repr__(self) -> str:
        return f"Admit({self._leases!r})"


def _still_stale() -> CannotCheckError:
    return CannotCheckError("a record is behind its live version", reason="record")


def _crashed(principal: Principal, arrival: Arrival, inference: InferenceRequest) -> bytes:
    """What the ledger will say of a request whose worker did not live to settle it; the reaper adds the rest."""
    event = events.of_request(
        principal,
        arrival,
        day="",
        outcome="crashed",
        status=_INTERNAL_STATUS,
        model=modelname.display(inference.canonical),
        usage=_ESTIMATED,
    )
    return records.encode(event)


def _granted(inference: InferenceRequest, num_predict: int) -> InferenceRequest:
    """The request with the output that was granted."""
    body = inference.body
    if num_predict == inference.num_predict or type(body) is EmbedBody:
        return inference
    options = msgspec.structs.replace(body.options, num_predict=num_predict)
    return msgspec.structs.replace(
        inference, body=msgspec.structs.replace(body, options=options), num_predict=num_predict, clamped=True
    )
