"""``ModelService``: what discovery has found, by backend."""

from __future__ import annotations

import datetime as dt
from typing import Protocol

import grpc

from controlplane.core.ports import BackendSource
from controlplane.errors import NotFoundError
from neuronetz.admin.v1 import model_pb2 as pb
from neuronetz.admin.v1 import model_pb2_grpc
from shared.records import BackendModelsRecord, DiscoveredRecord, ModelRecord

Context = grpc.aio.ServicerContext[object, object]


class Discovered(Protocol):
    """What discovery has published."""

    async def read(self) -> DiscoveredRecord | None:
        """The models in Redis, None when there are none. Raises ``RedisUnavailableError``."""
        ...


class ModelService(model_pb2_grpc.ModelServiceServicer):
    """Reads what the data planes read."""

    def __init__(self, *, source: BackendSource, discovered: Discovered) -> None:
        self._source = source
        self._discovered = discovered

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        """As the proto says."""
        names = [backend.name for backend in await self._source.backends()]
        if request.backend:
            if request.backend not in names:
                raise NotFoundError(f"there is no backend {request.backend!r}")
            names = [request.backend]
        record = await self._discovered.read()
        known = {entry.backend: entry for entry in record.backends} if record else {}
        shown = [known.get(name) or BackendModelsRecord(backend=name, seen_at_ms=0) for name in names]
        response = pb.ListModelsResponse(
            backends=[
                pb.BackendModels(backend=entry.backend, models=[_message(model) for model in entry.models])
                for entry in shown
            ],
            union_count=_distinct(shown),
            cached_count=_distinct(list(known.values())),
        )
        if record is not None:
            response.cached_until.FromDatetime(dt.datetime.fromtimestamp(record.expires_at_ms / 1000, dt.UTC))
        return response


def _distinct(entries: list[BackendModelsRecord]) -> int:
    return len({model.canonical for entry in entries for model in entry.models})


def _message(model: ModelRecord) -> pb.Model:
    message = pb.Model(
        name=model.name,
        family=model.family,
        parameter_size=model.parameter_size,
        quantization=model.quantization,
        size_bytes=model.size_bytes,
        capabilities=model.capabilities,
        context_length=model.context_length,
    )
    try:
        message.modified_at.FromDatetime(dt.datetime.fromisoformat(model.modified_at).astimezone(dt.UTC))
    except (ValueError, OverflowError):
        # Backends write what they like; a moment that is none is left out.
        message.ClearField("modified_at")
    return message
