"""What happens to a request: authenticate → admit → route → relay → settle. Read this first.

One Redis round trip before the upstream call (in *admit*), one when the reply has ended (in *settle*). Whatever
happens after admission, the lease is settled exactly once, by a task that outlives the request. May import stages,
ports, values and errors; knows nothing of HTTP servers, dialects or Redis.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Self

from dataplane.errors import AuthenticationError, ClientClosedError, ForbiddenError, GatewayError, RequestError
from dataplane.interrupt import Interrupt
from dataplane.ports import Batch, Exchange, Reply
from dataplane.stages.admit import Admit
from dataplane.stages.authenticate import Authenticate
from dataplane.stages.relay import Relay
from dataplane.stages.route import Route
from dataplane.stages.settle import OpenLease, Settle
from dataplane.values import InferenceRequest, Principal


class Pipeline:
    """The stages in their order. ``status_of`` says which HTTP status an error has, for the audit."""

    def __init__(
        self,
        *,
        authenticate: Authenticate,
        admit: Admit,
        route: Route,
        relay: Relay,
        settle: Settle,
        status_of: Callable[[GatewayError], int],
    ) -> None:
        self._authenticate = authenticate
        self._admit = admit
        self._route = route
        self._relay = relay
        self._settle = settle
        self._status_of = status_of

    async def infer(self, exchange: Exchange, interrupt: Interrupt) -> None:
        """One inference request from its credentials to its last byte.

        Raises ``GatewayError``: before the first byte of a reply it becomes an error reply, afterwards an error event.
        """
        principal = await self._authenticated(exchange)
        arrival = exchange.arrival
        try:
            inference = await self._read(principal, exchange)
            principal, lease, inference = await self._admit(principal, arrival, inference)
        except GatewayError as refusal:
            raise await self._refusal(principal, exchange, refusal) from None
        except asyncio.CancelledError:
            # Whoever leaves before admission leaves a row all the same.
            left = interrupt.reason or ClientClosedError()
            self._settle.refused(principal, arrival, left, status=self._status_of(left))
            raise
        exchange.admitted(inference, lease.rates)
        with self._settle.holding(lease, principal, arrival, inference, interrupt) as held:
            try:
                candidates = self._route(inference.canonical)
                async with self._relay(
                    candidates, inference, arrival.request_id, held.meter, tenant=principal.tenant_id
                ) as reply:
                    await exchange.deliver(_Settling(reply, held))
            except GatewayError as error:
                held.failed(error, status=self._status_of(error))
                raise

    async def list_models(self, exchange: Exchange, answer: Callable[[Principal], Awaitable[bytes]]) -> bytes:
        """One request that takes no lease (a listing): authenticated, checked and audited like any other."""
        principal = await self._checked(exchange)
        try:
            body = await answer(principal)
        except GatewayError as refusal:
            raise await self._refusal(principal, exchange, refusal) from None
        self._settle.listed(principal, exchange.arrival)
        return body

    async def refuse(self, exchange: Exchange, refusal: GatewayError) -> None:
        """Authenticates and checks a request to a route that answers nobody, then raises ``refusal``."""
        principal = await self._checked(exchange)
        raise await self._refusal(principal, exchange, refusal)

    async def _read(self, principal: Principal, exchange: Exchange) -> InferenceRequest:
        try:
            return await exchange.inference()
        except (RequestError, ForbiddenError):
            # Also this answer is for keys that are live now, and for nobody while that cannot be checked.
            await self._admit.check(principal)
            raise

    async def _authenticated(self, exchange: Exchange) -> Principal:
        try:
            return await self._authenticate(exchange.credentials)
        except GatewayError as refusal:
            self._settle.unauthenticated(exchange.arrival, status=self._status_of(refusal))
            raise

    async def _checked(self, exchange: Exchange) -> Principal:
        principal = await self._authenticated(exchange)
        try:
            return await self._admit.check(principal)
        except GatewayError as refusal:
            raise await self._refusal(principal, exchange, refusal) from None

    async def _refusal(self, principal: Principal, exchange: Exchange, refusal: GatewayError) -> GatewayError:
        """What a refused request is answered with, once the refusal is written down.

        A key that was revoked since it was last read is answered like one that never existed.
        """
        self._settle.refused(principal, exchange.arrival, refusal, status=self._status_of(refusal))
        if isinstance(refusal, AuthenticationError):
            return await self._authenticate.refusal(exchange.credentials, refusal)
        return refusal


class _Settling:
    """The reply's batches; the settlement leaves before the last of them does.

    A client that sends its next request on seeing the end of this one then finds its slot free.
    """

    __slots__ = ("_batches", "_held")

    def __init__(self, reply: Reply, held: OpenLease) -> None:
        self._batches = aiter(reply)
        self._held = held

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        batch = await anext(self._batches)
        if self._held.meter.complete:
            self._held.completed()
        return batch
