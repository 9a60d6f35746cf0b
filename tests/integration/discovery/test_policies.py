"""Model policies over gRPC: kept, published, audited, and refused with the field and the rule."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import grpc
import pytest

from controlplane.publish import connection
from deploy.local.redis import Redis
from neuronetz.admin.v1 import model_pb2 as pb
from neuronetz.admin.v1 import publication_pb2
from shared.modelname import canonical
from shared.records import ModelPolicyRecord
from tests.integration.discovery.test_services import Admin, config_of, serving, status_of

_AUTHORIZATION = (("authorization", "Bearer admin-token-for-tests"),)
APPLIED = publication_pb2.PUBLICATION_APPLIED


class Policies:
    """The model service as an administrator calls it."""

    def __init__(self, admin: Admin) -> None:
        self._models = admin._models

    async def set(self, model: str, *, allowed: tuple[str, ...] | None = None, **fields: Any) -> Any:
        options = None if allowed is None else pb.OptionNames(names=allowed)
        request = pb.SetModelPolicyRequest(model=model, allowed_options=options, **fields)
        return await self._models.SetModelPolicy(request, metadata=_AUTHORIZATION, timeout=30)

    async def clear(self, model: str, **fields: Any) -> Any:
        request = pb.ClearModelPolicyRequest(model=model, **fields)
        return await self._models.ClearModelPolicy(request, metadata=_AUTHORIZATION, timeout=30)

    async def get(self, model: str) -> pb.GetModelResponse:
        return await self._models.GetModel(pb.GetModelRequest(model=model), metadata=_AUTHORIZATION, timeout=30)


@pytest.fixture
async def admin(database_url, redis, mocks) -> AsyncIterator[Admin]:
    static = await mocks("LLAMA3:8b", "shared:1b", name="static")
    backends = json.dumps([{"name": "static", "url": static.url}])
    async with serving(database_url, redis.url, OLLAMA_BACKENDS=backends) as admin:
        await admin.until_polled("static")
        async with asyncio.timeout(30):
            while not (await admin.models()).union_count:
                await asyncio.sleep(0.02)
        yield admin


@pytest.fixture
def policies(admin) -> Policies:
    return Policies(admin)


async def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return status_of(caught)


async def test_a_policy_is_kept_published_and_shown(admin, policies, client):
    before = await config_of(client)
    answer = await policies.set("llama3:8b", num_ctx=8192, keep_alive="-1", allowed=("seed",), alias="Fast")
    assert answer.publication == APPLIED
    assert (answer.policy.model, answer.policy.keep_alive, answer.policy.alias) == ("llama3:8b", "-1s", "fast:latest")
    config = await config_of(client)
    assert config.revision > before.revision
    assert config.backends == before.backends
    assert config.models == (
        ModelPolicyRecord(
            model=canonical("llama3:8b"),
            num_ctx=8192,
            keep_alive="-1s",
            allowed_options=("seed",),
            alias=canonical("fast"),
        ),
    )
    listed = await admin.models()
    assert list(listed.policies) == [answer.policy]
    assert {model.name: model.alias for model in listed.backends[0].models} == {
        "LLAMA3:8b": "fast:latest",
        "shared:1b": "",
    }
    for name in ("llama3:8b", "library/LLAMA3:8b", "fast"):
        found = await policies.get(name)
        assert (found.model, found.policy) == ("llama3:8b", answer.policy)
        assert [(entry.backend, entry.models[0].name) for entry in found.backends] == [("static", "LLAMA3:8b")]


async def test_what_is_not_given_stays_and_what_is_cleared_goes(admin, policies, client):
    await policies.set("shared:1b", num_ctx=4096, max_num_predict=64)
    policy = (await policies.set("shared:1b", image_tokens=768, allowed=(), clear=["num_ctx"])).policy
    assert not policy.HasField("num_ctx")
    assert policy.HasField("allowed_options")
    assert (policy.max_num_predict, policy.image_tokens, list(policy.allowed_options.names)) == (64, 768, [])
    await policies.set("shared:1b", clear=["max_num_predict", "image_tokens", "allowed_options"])
    assert (await config_of(client)).models == ()
    assert not (await policies.get("shared:1b")).HasField("policy")


async def test_a_policy_needs_no_backend_and_ends_when_it_is_cleared(admin, policies, client):
    await policies.set("later:7b", num_ctx=4096)
    found = await policies.get("later:7b")
    assert (found.policy.num_ctx, len(found.backends)) == (4096, 0)
    assert [policy.model for policy in (await admin.models()).policies] == ["later:7b"]
    assert list((await admin.models("static")).policies) == []
    await policies.clear("later:7b", validate_only=True)
    assert len((await config_of(client)).models) == 1
    assert (await policies.clear("LATER:7b")).publication == APPLIED
    assert (await config_of(client)).models == ()
    for call in (policies.clear("later:7b"), policies.clear("later:7b", validate_only=True), policies.get("later:7b")):
        assert (await refusal(call))[0] is grpc.StatusCode.NOT_FOUND


async def test_a_dry_run_checks_everything_and_keeps_nothing(admin, policies, client):
    answer = await policies.set("shared:1b", num_ctx=4096, alias="fast", validate_only=True)
    assert (answer.publication, answer.policy.num_ctx) == (publication_pb2.PUBLICATION_UNSPECIFIED, 4096)
    assert (await config_of(client)).models == ()
    code, text = await refusal(policies.set("shared:1b", alias="llama3:8b", validate_only=True))
    assert (code, text) == (
        grpc.StatusCode.ALREADY_EXISTS,
        "alias llama3:8b is the name of a model that a backend has",
    )


@pytest.mark.parametrize(
    ("model", "fields", "code", "text"),
    [
        ("a b", {"num_ctx": 4096}, grpc.StatusCode.INVALID_ARGUMENT, "model must be the name of a local model"),
        ("new", {}, grpc.StatusCode.INVALID_ARGUMENT, "at least one of num_ctx, keep_alive"),
        ("new", {"num_ctx": 1}, grpc.StatusCode.INVALID_ARGUMENT, "num_ctx must be from 256 to 10000000"),
        ("new", {"keep_alive": "5"}, grpc.StatusCode.INVALID_ARGUMENT, "keep_alive must be a duration"),
        ("new", {"allowed": ("raw",)}, grpc.StatusCode.INVALID_ARGUMENT, "allowed_options: 'raw' must be one of"),
        ("new", {"alias": "new:latest"}, grpc.StatusCode.INVALID_ARGUMENT, "alias must not be the model's own name"),
        ("new", {"alias": "taken"}, grpc.StatusCode.ALREADY_EXISTS, "alias taken:latest is taken by shared:1b"),
        ("new", {"alias": "shared:1b"}, grpc.StatusCode.ALREADY_EXISTS, "is the name of a model"),
        ("taken", {"num_ctx": 4096}, grpc.StatusCode.FAILED_PRECONDITION, "is an alias of shared:1b"),
    ],
)
async def test_a_refusal_names_field_and_rule(model, fields, code, text, policies):
    await policies.set("shared:1b", alias="taken")
    refused, said = await refusal(policies.set(model, **fields))
    assert refused is code
    assert text in said


async def test_of_two_that_want_the_same_alias_at_once_one_gets_it(policies, client):
    calls = [policies.set(f"new:{number}b", alias="fast") for number in range(8)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    refused = [result for result in results if isinstance(result, grpc.aio.AioRpcError)]
    assert [error.code() for error in refused] == [grpc.StatusCode.ALREADY_EXISTS] * 7
    assert len((await config_of(client)).models) == 1


async def test_a_model_that_takes_the_name_of_an_alias_is_reported(admin, policies, mocks):
    await policies.set("shared:1b", alias="mistral:7b")
    late = await mocks("mistral:7b", name="late")
    await admin.add("late", late.url)
    async with asyncio.timeout(30):
        while not (problem := (await policies.get("shared:1b")).policy.problem):
            await asyncio.sleep(0.02)
    assert problem == "alias does not hold: a backend has a model of this name"
    assert (await policies.get("mistral:7b")).model == "mistral:7b"


async def test_who_changed_a_policy_is_on_record(policies, database_url):
    await policies.set("shared:1b", num_ctx=4096, validate_only=True)
    await policies.set("shared:1b", num_ctx=4096)
    await refusal(policies.set("shared:1b", num_ctx=1))
    await policies.clear("shared:1b")
    reader = await asyncpg.connect(database_url, ssl=False)
    try:
        rows = await reader.fetch("SELECT caller, method, target, outcome FROM control.operator_audit ORDER BY id")
    finally:
        await reader.close()
    assert [tuple(row) for row in rows] == [
        ("admin", "SetModelPolicy", "shared:1b", "OK"),
        ("admin", "SetModelPolicy", "shared:1b", "INVALID_ARGUMENT"),
        ("admin", "ClearModelPolicy", "shared:1b", "OK"),
    ]


async def test_policies_come_back_when_redis_lost_them(policies, client):
    await policies.set("shared:1b", num_ctx=4096)
    await client.flushall()
    async with asyncio.timeout(15):
        while not await client.exists("gateway:config"):
            await asyncio.sleep(0.02)
    assert [policy.num_ctx for policy in (await config_of(client)).models] == [4096]


async def test_a_policy_set_while_redis_is_away_is_pending_and_applied_later(database_url, tmp_path, mocks):
    mock = await mocks("one", name="a")
    with Redis(tmp_path) as server:
        async with (
            serving(database_url, server.url, OLLAMA_BASE_URL=mock.url) as admin,
            connection.connect(server.url, connect_timeout_s=1.0) as client,
        ):
            await admin.until_polled("default")
            await asyncio.to_thread(server.kill)
            answer = await Policies(admin).set("one", num_ctx=4096)
            assert answer.publication == publication_pb2.PUBLICATION_PENDING
            # Whether the alias is free cannot be known.
            code, _ = await refusal(Policies(admin).set("one", alias="fast"))
            assert code is grpc.StatusCode.UNAVAILABLE
            await asyncio.to_thread(server.start)
            async with asyncio.timeout(15):
                while not (await client.exists("gateway:config") and (await config_of(client)).models):
                    await asyncio.sleep(0.02)
