"""In front of every RPC: authentication, authorisation and bounds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import grpc

from controlplane.core.roles import Caller, Callers
from controlplane.rpc import authz
from controlplane.rpc.bounds import CallBounds
from controlplane.rpc.guarded import Context, Entry, Handler, entered
from shared import logs

_log = logs.get("controlplane.rpc")

# How long a caller that is refused may take to send its request.
REFUSED_REQUEST_TIMEOUT_S = 0.5

_UNAUTHENTICATED = (grpc.StatusCode.UNAUTHENTICATED, "unauthenticated")
_DENIED = (grpc.StatusCode.PERMISSION_DENIED, "permission denied")
_TOO_MANY = (grpc.StatusCode.RESOURCE_EXHAUSTED, "too many calls, try again later")

type Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]


class Gatekeeper(grpc.aio.ServerInterceptor):
    """Lets a call through when its caller is known and its role suffices; says nothing about why it does not.

    A caller is known by its token. Where certificates stand for callers, one without any ``authorization`` header is
    known by its certificate; that shows only when the call itself begins.
    """

    def __init__(self, callers: Callers, bounds: CallBounds) -> None:
        self._callers = callers
        self._bounds = bounds

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Called by gRPC once per call, before the request is read."""
        method = _text(handler_call_details.method)
        headers = [_text(value) for name, value in handler_call_details.invocation_metadata if name == "authorization"]
        caller = authz.authenticated(self._callers, headers)
        if caller is None and (headers or not self._callers.by_certificate):
            return _refusal(self._bounds, *_UNAUTHENTICATED)
        if caller is not None:
            refused = self._refused(caller, method)
            if refused is not None:
                return _refusal(self._bounds, *refused)
        if method not in authz.RULES:
            # Of a caller with a certificate: nothing is served that is not in the table.
            return _refusal(self._bounds, *_DENIED)
        handler = await continuation(handler_call_details)
        return None if handler is None else entered(handler, partial(self._entered, method, caller))

    @asynccontextmanager
    async def _entered(self, method: str, caller: Caller | None, context: Context) -> AsyncIterator[Entry]:
        """Around a call: who calls, known at last; ends the call of a certificate that may not."""
        if caller is None:
            caller = self._callers.certified(_identities(context))
            refused = _UNAUTHENTICATED if caller is None else self._refused(caller, method)
            if caller is None or refused is not None:
                await context.abort(*(refused or _UNAUTHENTICATED))
        authz.CALLER.set(caller)
        with self._bounds.running(caller):
            yield Entry(method=method, caller=caller, audited=authz.RULES[method].mutates)

    def _refused(self, caller: Caller, method: str) -> tuple[grpc.StatusCode, str] | None:
        if authz.allowed(caller, method) is None:
            _log.warning("call_denied", method=method, caller=caller.name, role=caller.role)
            return _DENIED
        return None if self._bounds.may_call(caller) else _TOO_MANY

    def __repr__(self) -> str:
        return f"Gatekeeper({self._callers!r}, {self._bounds!r})"


def _identities(context: Context) -> list[str]:
    """The names in the client's certificate, which TLS has verified; none without one."""
    known = context.auth_context()
    return [
        value.decode("utf-8", "replace")
        for name in ("x509_common_name", "x509_subject_alternative_name")
        for value in known.get(name, ())
    ]


def _refusal(bounds: CallBounds, status: grpc.StatusCode, text: str) -> Handler:
    async def refuse(requests: AsyncIterator[Any], context: Context) -> None:
        with bounds.refusing() as is_patient:
            if is_patient:
                # A refusal that overtakes the request resets the stream, and its caller hears of that instead.
                with contextlib.suppress(TimeoutError, StopAsyncIteration):
                    async with asyncio.timeout(REFUSED_REQUEST_TIMEOUT_S):
                        await anext(aiter(requests))
            await context.abort(status, text)

    # As a stream, whatever the method is: then nothing has to be understood before the refusal.
    return grpc.stream_stream_rpc_method_handler(refuse)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("ascii", "replace")
