"""May this request enter now? The model, then everything that one script in Redis decides.

A principal may be older than what is live: then its record is read once more and everything is decided anew, with the
new grants and limits. A record that is still behind cannot be checked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from dataplane.capabilities import unsupported
from dataplane.errors import CannotCheckError, ForbiddenError, RequestError
from dataplane.ports import Keys, Leases, Models, StalePrincipalError
from dataplane.values import InferenceRequest, Lease, Principal, RequestId


class Admit:
    """The second stage."""

    def __init__(self, *, leases: Leases, keys: Keys, models: Models) -> None:
        self._leases = leases
        self._keys = keys
        self._models = models

    async def __call__(
        self, principal: Principal, request_id: RequestId, inference: InferenceRequest
    ) -> tuple[Principal, Lease]:
        """A lease, and the principal that it was given to.

        Raises ``ForbiddenError`` for a model that is not there or not granted, ``RequestError`` for what it cannot do,
        ``AuthenticationError`` for a key or
        tenant that is refused by now, ``LimitExceededError`` and ``CannotCheckError``.
        """

        async def acquire(principal: Principal) -> Lease:
            model = self._models.resolve(principal.grant, inference.canonical)
            lacking = None if model is None else unsupported(inference, model)
            if model is None or lacking is not None:
                # Also a refusal has to be true: a revoked key learns nothing about models.
                await self._leases.check(principal)
                raise ForbiddenError("model_not_allowed") if lacking is None else RequestError(lacking)
            return await self._leases.acquire(principal, request_id)

        return await self._with_fresh(principal, acquire)

    async def check(self, principal: Principal) -> Principal:
        """The same for requests that take no lease. Raises as above, but for models and limits."""
        principal, _ = await self._with_fresh(principal, self._leases.check)
        return principal

    async def _with_fresh[T](
        self, principal: Principal, decide: Callable[[Principal], Awaitable[T]]
    ) -> tuple[Principal, T]:
        try:
            return principal, await decide(principal)
        except StalePrincipalError:
            principal = await self._keys.refreshed(principal)
        try:
            return principal, await decide(principal)
        except StalePrincipalError:
            raise CannotCheckError("a record is behind its live version") from None

    def __repr__(self) -> str:
        return f"Admit({self._leases!r})"
