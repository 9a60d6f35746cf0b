"""What happens to a request: authenticate → admit → route → relay → settle. Read this first.

One Redis round trip before the upstream call (in *admit*), one when the reply has ended (in *settle*). Whatever
happens after admission, the lease is settled exactly once, by a task that outlives the request. May import stages,
ports, values and errors; knows nothing of HTTP servers, dialects or Redis.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from dataplane.errors import GatewayError
from dataplane.interrupt import Interrupt
from dataplane.ports import Batch, Exchange, Reply
from dataplane.stages.admit import Admit
from dataplane.stages.authenticate import Authenticate
from dataplane.stages.relay import Relay
from dataplane.stages.route import Route
from dataplane.stages.settle import OpenLease, Settle
from dataplane.values import Arrival, Principal


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
        principal = await self._authenticate(exchange.credentials)
        arrival = exchange.arrival
        try:
            inference = await exchange.inference()
            principal, lease = await self._admit(principal, arrival.request_id, inference)
        except GatewayError as refusal:
            self._settle.refused(principal, arrival, refusal, status=self._status_of(refusal))
            raise
        with self._settle.holding(lease, principal, arrival, inference, interrupt) as held:
            try:
                candidates = self._route(inference.canonical)
                async with self._relay(candidates, inference, arrival.request_id, held.meter) as reply:
                    held.answered_by(reply.backend)
                    await exchange.deliver(_settling(reply, held))
            except GatewayError as error:
                held.failed(error, status=self._status_of(error))
                raise

    async def listed(self, exchange: Exchange) -> Principal:
        """Authenticates and checks a request that takes no lease (listings); it is audited like any other."""
        principal = await self._checked(exchange)
        self._settle.listed(principal, exchange.arrival)
        return principal

    async def refuse(self, exchange: Exchange, refusal: GatewayError) -> None:
        """Authenticates and checks a request to a route that answers nobody, then raises ``refusal``."""
        principal = await self._checked(exchange)
        self._settle.refused(principal, exchange.arrival, refusal, status=self._status_of(refusal))
        raise refusal

    async def _checked(self, exchange: Exchange) -> Principal:
        principal = await self._authenticate(exchange.credentials)
        arrival: Arrival = exchange.arrival
        try:
            return await self._admit.check(principal)
        except GatewayError as refusal:
            self._settle.refused(principal, arrival, refusal, status=self._status_of(refusal))
            raise


async def _settling(reply: Reply, held: OpenLease) -> AsyncIterator[Batch]:
    """The reply's batches; the settlement leaves before the last of them does.

    A client that sends its next request on seeing the end of this one then finds its slot free.
    """
    async for batch in reply:
        if held.meter.complete:
            held.completed()
        yield batch
