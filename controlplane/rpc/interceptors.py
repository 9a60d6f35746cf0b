"""In front of every RPC: authentication, authorisation, the operator audit, and errors as statuses."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict, SerializeToJsonError
from google.protobuf.message import Message

from controlplane.core.roles import Caller, Callers
from controlplane.errors import ControlPlaneError, StoreUnavailableError, rendered
from controlplane.rpc import authz
from controlplane.store import operator_audit
from shared import logs
from shared.redaction import REDACTED, redact

# Names of request fields whose values are secrets.
SECRET_FIELDS = frozenset({"token", "api_key"})
# What a mutation acts on, the first that is set.
TARGET_FIELDS = ("prefix", "tenant", "name", "model")
MAX_DETAIL_CHARACTERS = 2000

_log = logs.get("controlplane.rpc")

# How long a caller that is refused may take to send its request.
REFUSED_REQUEST_TIMEOUT_S = 0.5

type Handler = grpc.RpcMethodHandler[Any, Any]
type Context = grpc.aio.ServicerContext[Any, Any]
type Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]


class Gatekeeper(grpc.aio.ServerInterceptor):
    """Lets a call through when its caller is known and its role suffices; says nothing about why it does not."""

    def __init__(self, callers: Callers) -> None:
        self._callers = callers

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Called by gRPC once per call, before the request is read."""
        method = _text(handler_call_details.method)
        headers = [_text(value) for name, value in handler_call_details.invocation_metadata if name == "authorization"]
        caller = authz.authenticated(self._callers, headers)
        if caller is None:
            return _refusal(grpc.StatusCode.UNAUTHENTICATED, "unauthenticated")
        rule = authz.allowed(caller, method)
        if rule is None:
            _log.warning("call_denied", method=method, caller=caller.name, role=caller.role)
            return _refusal(grpc.StatusCode.PERMISSION_DENIED, "permission denied")
        handler = await continuation(handler_call_details)
        if handler is not None and inspect.isasyncgenfunction(handler.unary_stream):
            stream = _GuardedStream(handler.unary_stream, method=method, caller=caller)
            return grpc.unary_stream_rpc_method_handler(
                stream.serve,
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        if handler is None or handler.unary_unary is None:
            # The streams of others (health, reflection) change nothing and translate no errors of ours.
            return handler
        guarded = _Guarded(handler.unary_unary, method=method, caller=caller, audited=rule.mutates)
        return grpc.unary_unary_rpc_method_handler(
            guarded.serve,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def __repr__(self) -> str:
        return f"Gatekeeper({self._callers!r})"


class _Guarded:
    """One unary RPC of one caller."""

    def __init__(
        self, behaviour: Callable[[Any, Any], Awaitable[Any]], *, method: str, caller: Caller, audited: bool
    ) -> None:
        self._behaviour = behaviour
        self._method = method
        self._caller = caller
        self._audited = audited

    async def serve(self, request: Message, context: Context) -> Any:
        authz.CALLER.set(self._caller)
        row_id: int | None = None
        outcome = grpc.StatusCode.OK.name
        try:
            if self._audited and not getattr(request, "validate_only", False):
                row_id = await self._begin(request)
            return await self._behaviour(request, context)
        except (asyncio.CancelledError, grpc.aio.AbortError):
            row_id = None
            raise
        except Exception as error:
            kind, text = rendered(error)
            status = grpc.StatusCode[kind.name]
            outcome = status.name
            _report(error, status, self._method, self._caller)
            await context.abort(status, text)
        finally:
            if row_id is not None:
                with contextlib.suppress(StoreUnavailableError):
                    await operator_audit.finish(row_id, outcome)

    async def _begin(self, request: Message) -> int:
        fields = audited_fields(request)
        target = next((str(fields[name]) for name in TARGET_FIELDS if fields.get(name)), "")
        return await operator_audit.begin(
            caller=self._caller.name,
            role=self._caller.role.value,
            method=self._method.rsplit("/", 1)[1],
            target=target,
            detail=fields,
        )


class _GuardedStream:
    """One stream of answers to one caller; it changes nothing."""

    def __init__(self, behaviour: Callable[[Any, Any], AsyncGenerator[Any]], *, method: str, caller: Caller) -> None:
        self._behaviour = behaviour
        self._method = method
        self._caller = caller

    async def serve(self, request: Message, context: Context) -> AsyncGenerator[Any]:
        try:
            # Closed here and now when the caller leaves, not whenever it is collected.
            async with contextlib.aclosing(self._behaviour(request, context)) as answers:
                async for answer in answers:
                    yield answer
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            kind, text = rendered(error)
            status = grpc.StatusCode[kind.name]
            _report(error, status, self._method, self._caller)
            await context.abort(status, text)


def _report(error: Exception, status: grpc.StatusCode, method: str, caller: Caller) -> None:
    if status is grpc.StatusCode.INTERNAL:
        _log.error("call_failed", method=method, caller=caller.name, exc_info=error)
    elif isinstance(error, ControlPlaneError) and error.source != "client":
        _log.warning("call_refused", method=method, status=status.name, fault=str(error))


def audited_fields(request: Message) -> dict[str, Any]:
    """The fields of a request for the audit, secrets as ``***`` at every depth, long texts cut."""
    try:
        fields: dict[str, Any] = MessageToDict(request, preserving_proto_field_name=True)
    except SerializeToJsonError:
        # A moment or duration out of range: the request will be refused, but first it is on record.
        fields = {name: value for name in TARGET_FIELDS if isinstance(value := getattr(request, name, None), str)}
    safe: dict[str, Any] = _safe(fields)
    return safe


def _safe(value: Any) -> Any:
    if isinstance(value, str):
        # Postgres holds no NUL, and what a caller wrote must not keep its row from being written.
        return redact(value)[:MAX_DETAIL_CHARACTERS].replace("\x00", "\ufffd")
    if isinstance(value, list):
        return [_safe(item) for item in value]
    if isinstance(value, dict):
        return {name: REDACTED if name in SECRET_FIELDS else _safe(item) for name, item in value.items()}
    return value


def _refusal(status: grpc.StatusCode, text: str) -> Handler:
    async def refuse(requests: AsyncIterator[Any], context: Context) -> None:
        # A refusal that overtakes the request resets the stream, and its caller hears of that instead.
        with contextlib.suppress(TimeoutError, StopAsyncIteration):
            async with asyncio.timeout(REFUSED_REQUEST_TIMEOUT_S):
                await anext(aiter(requests))
        await context.abort(status, text)

    # As a stream, whatever the method is: then nothing has to be understood before the refusal.
    return grpc.stream_stream_rpc_method_handler(refuse)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("ascii", "replace")
