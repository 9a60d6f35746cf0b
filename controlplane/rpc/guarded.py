"""What surrounds every call: its caller, the operator audit, and errors as statuses."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, NoReturn

import grpc
import msgspec
from google.protobuf.json_format import MessageToDict, SerializeToJsonError
from google.protobuf.message import Message

from controlplane.core.roles import Caller
from controlplane.errors import ControlPlaneError, StoreUnavailableError, rendered
from controlplane.store import operator_audit
from shared import logs
from shared.redaction import REDACTED, redact

# Names of request fields whose values are secrets.
SECRET_FIELDS = frozenset({"token", "api_key"})
# What a mutation acts on, the first that is set.
TARGET_FIELDS = ("prefix", "tenant", "name", "model")
MAX_DETAIL_CHARACTERS = 2000

_log = logs.get("controlplane.rpc")

type Handler = grpc.RpcMethodHandler[Any, Any]
type Context = grpc.aio.ServicerContext[Any, Any]


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A call that was let in."""

    # As on the wire: /package.Service/Method.
    method: str
    caller: Caller
    # Whether it changes something and is therefore written down.
    audited: bool


type Around = Callable[[Context], AbstractAsyncContextManager[Entry]]


def entered(handler: Handler, around: Around) -> Handler:
    """The handler with ``around`` around each of its calls; ours also with their audit and errors translated."""
    codecs = {
        "request_deserializer": handler.request_deserializer,
        "response_serializer": handler.response_serializer,
    }
    if handler.unary_unary is not None:
        return grpc.unary_unary_rpc_method_handler(_unary(handler.unary_unary, around), **codecs)
    if handler.unary_stream is not None:
        return grpc.unary_stream_rpc_method_handler(_stream(handler.unary_stream, around), **codecs)
    behaviour: Any = handler.stream_stream
    return grpc.stream_stream_rpc_method_handler(_stream(behaviour, around), **codecs)


def _unary(behaviour: Callable[[Any, Any], Awaitable[Any]], around: Around) -> Callable[[Any, Context], Awaitable[Any]]:
    async def serve(request: Message, context: Context) -> Any:
        async with around(context) as entry:
            return await _audited(behaviour, entry, request, context)

    return serve


def _stream(behaviour: Callable[..., Any], around: Around) -> Callable[[Any, Context], Any]:
    """A behaviour that yields its answers stays one, and one that writes them itself too; streams change nothing."""
    if inspect.isasyncgenfunction(behaviour):

        async def yield_answers(request: Any, context: Context) -> AsyncGenerator[Any]:
            async with around(context) as entry:
                try:
                    # Closed here and now when the caller leaves, not whenever it is collected.
                    async with contextlib.aclosing(behaviour(request, context)) as answers:
                        async for answer in answers:
                            yield answer
                except grpc.aio.AbortError:
                    raise
                except Exception as error:
                    await _abort(error, entry, context)

        return yield_answers

    async def write_answers(request: Any, context: Context) -> None:
        async with around(context):
            await behaviour(request, context)

    return write_answers


async def _audited(
    behaviour: Callable[[Any, Any], Awaitable[Any]], entry: Entry, request: Message, context: Context
) -> Any:
    """Answers; whoever has the answer, good or bad, finds the row complete."""
    row_id: int | None = None
    try:
        if entry.audited and not getattr(request, "validate_only", False):
            row_id = await _begin(entry, request)
        answer = await behaviour(request, context)
    except (asyncio.CancelledError, grpc.aio.AbortError):
        raise
    except Exception as error:
        await _finish(row_id, grpc.StatusCode[rendered(error)[0].name])
        await _abort(error, entry, context)
    await _finish(row_id, grpc.StatusCode.OK)
    return answer


async def _begin(entry: Entry, request: Message) -> int:
    fields = audited_fields(request)
    return await operator_audit.begin(
        caller=entry.caller.name,
        role=entry.caller.role.value,
        method=entry.method.rsplit("/", 1)[1],
        target=next((str(fields[name]) for name in TARGET_FIELDS if fields.get(name)), ""),
        detail=fields,
    )


async def _finish(row_id: int | None, outcome: grpc.StatusCode) -> None:
    if row_id is not None:
        with contextlib.suppress(StoreUnavailableError):
            await operator_audit.finish(row_id, outcome.name)


async def _abort(error: Exception, entry: Entry, context: Context) -> NoReturn:
    kind, text = rendered(error)
    status = grpc.StatusCode[kind.name]
    _report(error, status, entry.method, entry.caller)
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
