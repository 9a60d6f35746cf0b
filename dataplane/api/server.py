"""The ASGI application for clients: from a scope to a route, from an error to a reply.

One raw ASGI callable is mounted in Litestar; it does what must happen for every request in plain sight and hands
inference to ``dataplane.pipeline``.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter

from litestar.types import HTTPScope, Receive, Send

from dataplane.api import header, listings, problems, routes
from dataplane.api.dialect import JSON_UTF8
from dataplane.api.exchange import Edge, HTTPExchange
from dataplane.api.forwarded import TrustedProxies
from dataplane.api.heads import Fields
from dataplane.api.routes import Kind, Route
from dataplane.api.watching import Departures
from dataplane.errors import (
    CannotCheckError,
    ClientClosedError,
    ForbiddenError,
    GatewayError,
    NotReadyError,
    Unchecked,
    UnknownRouteError,
    release_frames,
)
from dataplane.interrupt import Interrupt
from dataplane.pipeline import Pipeline
from dataplane.ports import Models
from dataplane.values import Arrival, Credentials, Principal, RequestId
from shared import logs
from shared.clock import Clock
from shared.modelname import CanonicalName
from shared.records import ModelRecord

# What the native dialect here corresponds to; clients ask before they use newer features.
OLLAMA_API_VERSION = "0.33.0"

_LIVENESS = b"neuronetz-gateway is running"
_TEXT = b"text/plain; charset=utf-8"

_CUT = "a stream was cut after its error event"
# What the server below logs when a stream is cut with ``ConnectionCut``.
EXPECTED_MESSAGES = (_CUT,)

_log = logs.get(__name__)


class ConnectionCut(Exception):  # noqa: N818 - not an error: the one way to make the server drop a connection
    """Raised after a stream's error event, so that the server ends the connection without a terminating chunk."""

    def __init__(self) -> None:
        super().__init__(_CUT)


class Server:
    """Answers clients. ``in_flight`` holds the requests that are being answered."""

    def __init__(
        self,
        *,
        pipeline: Pipeline,
        models: Models,
        edge: Edge,
        departures: Departures,
        proxies: TrustedProxies,
        clock: Clock,
    ) -> None:
        self._pipeline = pipeline
        self._models = models
        self._edge = edge
        self._departures = departures
        self._proxies = proxies
        self._clock = clock
        self.in_flight: set[HTTPExchange] = set()
        # Requests that ended with an error that nobody has foreseen, since the worker started.
        self.failed_unexpectedly = 0
        # Requests that were denied because they could not be checked, by reason.
        self.unchecked: Counter[Unchecked] = Counter()
        # Set while nothing is in flight.
        self.idle = asyncio.Event()
        self.idle.set()

    async def __call__(self, scope: HTTPScope, fields: Fields, receive: Receive, send: Send) -> None:
        """Answers one request. ``fields`` is what was read of its head."""
        route = routes.match(scope["method"], scope["raw_path"])
        interrupt = Interrupt()
        exchange = self._exchange(route, interrupt, scope, fields, receive, send)
        self.in_flight.add(exchange)
        self.idle.clear()
        try:
            with interrupt:
                await self._answer(route, exchange, scope["raw_path"])
        except ClientClosedError as left:
            release_frames(left)
            # Nobody is left to read an answer. A client that merely stopped reading still holds the connection.
            if exchange.started:
                raise ConnectionCut from None
        except GatewayError as error:
            release_frames(error)
            if isinstance(error, CannotCheckError) and error.retryable:
                self.unchecked[error.reason] += 1
            await self._fail(route, exchange, error)
        except Exception as mistake:
            self.failed_unexpectedly += 1
            _log.exception("request_failed_unexpectedly", request_id=exchange.arrival.request_id, route=route.name)
            release_frames(mistake)
            await self._fail(route, exchange, GatewayError())
        finally:
            await exchange.close()
            self.in_flight.discard(exchange)
            if not self.in_flight:
                self.idle.set()
        await exchange.linger()

    def drain_out(self) -> None:
        """Ends what is still being answered: the drain time is over."""
        for exchange in tuple(self.in_flight):
            exchange.interrupt.fire(NotReadyError("draining", reason="draining"))

    def _exchange(
        self, route: Route, interrupt: Interrupt, scope: HTTPScope, fields: Fields, receive: Receive, send: Send
    ) -> HTTPExchange:
        client = scope["client"]
        client_ip = self._proxies.client_ip(client[0] if client else "", fields.get(header.FORWARDED_FOR, ()))
        arrival = Arrival(
            request_id=RequestId(os.urandom(16).hex()),
            dialect=route.dialect,
            endpoint=route.name,
            client_ip=client_ip,
            created_at_ms=int(self._clock.unix_s() * 1000),
            started_s=self._clock.monotonic(),
        )
        return HTTPExchange(
            endpoint=route.endpoint,
            edge=self._edge,
            departures=self._departures,
            arrival=arrival,
            credentials=Credentials(authorization=tuple(fields.get(header.AUTHORIZATION, ())), client_ip=client_ip),
            interrupt=interrupt,
            fields=fields,
            wants_body=scope["method"] != "HEAD",
            receive=receive,
            send=send,
        )

    async def _answer(self, route: Route, exchange: HTTPExchange, raw_path: bytes) -> None:
        match route.kind:
            case Kind.INFER:
                await self._pipeline.infer(exchange, exchange.interrupt)
            case Kind.LIVENESS:
                await exchange.reply(_TEXT, _LIVENESS)
            case Kind.BLOCKED:
                await self._pipeline.refuse(exchange, ForbiddenError("endpoint_blocked"))
            case Kind.UNKNOWN:
                await self._pipeline.refuse(exchange, UnknownRouteError())
            case _:
                body = await self._pipeline.list_models(
                    exchange, lambda principal: self._listing(route.kind, exchange, principal, raw_path)
                )
                await exchange.reply(JSON_UTF8, body)

    async def _listing(self, kind: Kind, exchange: HTTPExchange, principal: Principal, raw_path: bytes) -> bytes:
        match kind:
            case Kind.TAGS:
                return listings.tags(self._models.listing(principal.grant))
            case Kind.MODELS:
                return listings.openai_models(self._models.listing(principal.grant))
            case Kind.MODEL:
                return listings.openai_model(self._granted(principal, listings.parse_model_id(routes.tail(raw_path))))
            case Kind.SHOW:
                return listings.show(self._granted(principal, listings.parse_show(await exchange.body())))
            case _:
                return listings.version(OLLAMA_API_VERSION)

    def _granted(self, principal: Principal, name: CanonicalName) -> ModelRecord:
        model = self._models.resolve(principal.grant, name)
        if model is None:
            raise ForbiddenError("model_not_allowed")
        return model

    async def _fail(self, route: Route, exchange: HTTPExchange, error: GatewayError) -> None:
        if exchange.started:
            await exchange.end_with(exchange.broken(error))
            raise ConnectionCut from None
        request_id = exchange.arrival.request_id
        problem = problems.render(error, route.dialect, request_id, request_id_header=self._edge.request_id_header)
        await exchange.refuse(problem.status, problem.headers, problem.body)

    def __repr__(self) -> str:
        return f"Server(in_flight={len(self.in_flight)})"
