"""``ModelService``: what discovery has found, by backend, and what operators decide about it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Protocol

import grpc

from controlplane.core import policies
from controlplane.core.policies import PolicyChange
from controlplane.core.ports import BackendSource, Publisher
from controlplane.errors import NotFoundError
from controlplane.rpc import convert
from controlplane.store.policies import PostgresPolicies
from neuronetz.admin.v1 import model_pb2 as pb
from neuronetz.admin.v1 import model_pb2_grpc
from shared import modelname
from shared.modelname import CanonicalName
from shared.records import BackendModelsRecord, DiscoveredRecord, ModelPolicyRecord, ModelRecord

Context = grpc.aio.ServicerContext[object, object]


class Discovered(Protocol):
    """What discovery has published."""

    async def read(self) -> DiscoveredRecord | None:
        """The models in Redis, None when there are none. Raises ``RedisUnavailableError``."""
        ...


class ModelService(model_pb2_grpc.ModelServiceServicer):
    """Reads what the data planes read; commits and publishes policies."""

    def __init__(
        self, *, source: BackendSource, discovered: Discovered, kept: PostgresPolicies, publisher: Publisher
    ) -> None:
        self._source = source
        self._discovered = discovered
        self._kept = kept
        self._publisher = publisher

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        """As the proto says."""
        names = [backend.name for backend in await self._source.backends()]
        if request.backend:
            if request.backend not in names:
                raise NotFoundError(f"there is no backend {request.backend!r}")
            names = [request.backend]
        kept = {policy.model: policy for policy in await self._kept.every()}
        record = await self._discovered.read()
        known = {entry.backend: entry for entry in record.backends} if record else {}
        every = [known.get(name) or BackendModelsRecord(backend=name, seen_at_ms=0) for name in names]
        present = _models_of(list(known.values()))
        listed = _models_of(every)
        shown, following = convert.page_of(every, request.page_size, request.page_token)
        response = pb.ListModelsResponse(
            backends=[
                pb.BackendModels(
                    backend=entry.backend,
                    models=[_message(model, kept.get(model.canonical)) for model in entry.models],
                )
                for entry in shown
            ],
            union_count=len(listed),
            cached_count=len(present),
            policies=[
                _policy(policy, policies.problem_of(policy, present))
                for policy in kept.values()
                if not request.page_token and (not request.backend or policy.model in listed)
            ],
            next_page_token=following,
        )
        if record is not None:
            response.cached_until.FromDatetime(dt.datetime.fromtimestamp(record.expires_at_ms / 1000, dt.UTC))
        return response

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        """As the proto says."""
        asked = policies.parse_model(request.model)
        kept = await self._kept.every()
        configured = {backend.name for backend in await self._source.backends()}
        entries = [entry for entry in await self._entries() if entry.backend in configured]
        present = _models_of(entries)
        # As on the data plane: the name of a real model is never an alias.
        aliased = next((policy.model for policy in kept if policy.alias == asked), asked)
        model = asked if asked in present else aliased
        policy = next((policy for policy in kept if policy.model == model), None)
        offers = [
            pb.BackendModels(backend=entry.backend, models=[_message(found, policy)])
            for entry in entries
            for found in entry.models
            if found.canonical == model
        ]
        if policy is None and not offers:
            raise NotFoundError(f"there is no model {modelname.display(model)} and no policy for it")
        response = pb.GetModelResponse(model=modelname.display(model), backends=offers)
        if policy is not None:
            response.policy.CopyFrom(_policy(policy, policies.problem_of(policy, present)))
        return response

    async def SetModelPolicy(self, request: pb.SetModelPolicyRequest, context: Context) -> pb.SetModelPolicyResponse:
        """As the proto says."""
        model, change = policies.parse_model(request.model), _change(request)
        # Only an alias can clash with what is discovered; without one, nothing waits for Redis.
        discovered = _models_of(await self._entries()) if change.alias is not None else frozenset()

        def apply(known: Sequence[ModelPolicyRecord]) -> ModelPolicyRecord:
            return policies.changed(model, change, known=known, discovered=discovered)

        if request.validate_only:
            return pb.SetModelPolicyResponse(policy=_policy(apply(await self._kept.every())))
        policy = await self._kept.change(apply)
        announced = await self._publisher.publish_config()
        return pb.SetModelPolicyResponse(
            policy=_policy(policy), publication=convert.publication(applied=announced.applied)
        )

    async def ClearModelPolicy(
        self, request: pb.ClearModelPolicyRequest, context: Context
    ) -> pb.ClearModelPolicyResponse:
        """As the proto says."""
        model = policies.parse_model(request.model)
        if request.validate_only:
            if all(policy.model != model for policy in await self._kept.every()):
                raise NotFoundError(f"there is no policy of {modelname.display(model)}")
            return pb.ClearModelPolicyResponse()
        await self._kept.remove(model)
        announced = await self._publisher.publish_config()
        return pb.ClearModelPolicyResponse(publication=convert.publication(applied=announced.applied))

    async def _entries(self) -> Sequence[BackendModelsRecord]:
        record = await self._discovered.read()
        return record.backends if record else ()


def _models_of(entries: Sequence[BackendModelsRecord]) -> frozenset[CanonicalName]:
    return frozenset(model.canonical for entry in entries for model in entry.models)


def _change(request: pb.SetModelPolicyRequest) -> PolicyChange:
    has = request.HasField
    return PolicyChange(
        num_ctx=request.num_ctx if has("num_ctx") else None,
        keep_alive=request.keep_alive if has("keep_alive") else None,
        max_num_predict=request.max_num_predict if has("max_num_predict") else None,
        image_tokens=request.image_tokens if has("image_tokens") else None,
        allowed_options=tuple(request.allowed_options.names) if has("allowed_options") else None,
        alias=request.alias if has("alias") else None,
        clear=tuple(request.clear),
    )


def _policy(policy: ModelPolicyRecord, problem: str = "") -> pb.ModelPolicy:
    message = pb.ModelPolicy(
        model=modelname.display(policy.model),
        num_ctx=policy.num_ctx,
        keep_alive=policy.keep_alive,
        max_num_predict=policy.max_num_predict,
        image_tokens=policy.image_tokens,
        alias=None if policy.alias is None else modelname.display(policy.alias),
        problem=problem,
    )
    if policy.allowed_options is not None:
        # Also when there are none: an empty list is not an unset one.
        message.allowed_options.SetInParent()
        message.allowed_options.names.extend(policy.allowed_options)
    return message


def _message(model: ModelRecord, policy: ModelPolicyRecord | None) -> pb.Model:
    message = pb.Model(
        name=model.name,
        family=model.family,
        parameter_size=model.parameter_size,
        quantization=model.quantization,
        size_bytes=model.size_bytes,
        capabilities=model.capabilities,
        context_length=model.context_length,
        alias=modelname.display(policy.alias) if policy is not None and policy.alias is not None else "",
    )
    try:
        message.modified_at.FromDatetime(dt.datetime.fromisoformat(model.modified_at).astimezone(dt.UTC))
    except (ValueError, OverflowError):
        # Backends write what they like; a moment that is none is left out.
        message.ClearField("modified_at")
    return message
