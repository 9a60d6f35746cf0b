"""Tenants and keys as operators use them, over real gRPC, down to the records in Redis."""

import datetime as dt
import json
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from redis.asyncio import Redis as RedisClient

from controlplane.store import engine
from neuronetz.admin.v1 import key_pb2 as k
from neuronetz.admin.v1 import limits_pb2, publication_pb2
from neuronetz.admin.v1 import tenant_pb2 as t
from shared import apikey, keyspace
from shared.keyspace import TenantId
from tests.integration.controlplane.conftest import ADMIN_TOKEN, OPERATOR_TOKEN, PEPPER, Running

APPLIED = publication_pb2.PUBLICATION_APPLIED


async def tenant(gateway: Running, name: str = "acme", **more: Any) -> Any:
    response = await gateway.call(gateway.tenants.CreateTenant, t.CreateTenantRequest(name=name, **more))
    assert response.publication == APPLIED
    return response.tenant


async def key(gateway: Running, name: str = "prod", **more: Any) -> Any:
    return await gateway.call(gateway.keys.CreateKey, k.CreateKeyRequest(tenant="acme", name=name, **more))


async def record(client: RedisClient, name: str) -> Any:
    raw = await client.get(name)
    assert raw is not None, name
    return json.loads(raw)


async def live(client: RedisClient, tenant_id: str, scope: str) -> int:
    raw = await client.hget(keyspace.live(keyspace.shard_of(TenantId(tenant_id))), scope)
    assert raw is not None
    return int(raw)


async def refused(gateway: Running, method: Any, request: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await gateway.call(method, request)
    return caught.value


async def test_created_tenant_and_key_are_in_redis_when_the_answer_comes(gateway, client):
    acme = await tenant(gateway, limits=limits_pb2.Limits(rpm=5, budget_day=0))
    created = await key(
        gateway,
        grants=limits_pb2.Grants(allowed_models=limits_pb2.ModelNames(names=["Llama3", "llama3:latest", "qwen3:8b"])),
        prompt_log=True,
    )
    assert apikey.is_valid(PEPPER.encode(), created.api_key)
    assert created.api_key.startswith(created.prefix)
    assert list(created.key.grants.allowed_models.names) == ["llama3:latest", "qwen3:8b"]
    stored = await record(client, f"gateway:key:{created.prefix}")
    assert stored["digest"] == apikey.digest(PEPPER.encode(), created.api_key)
    assert stored["key_id"] == created.key.id
    assert stored["prompt_log_days"] == 30
    assert (await record(client, f"gateway:tenant:{acme.id}"))["limits"] == {"rpm": 5, "budget_day": 0}
    assert await live(client, acme.id, f"k:{created.key.id}") == 1
    assert await live(client, acme.id, f"t:{acme.id}") == 1


async def test_only_an_argon2id_hash_is_stored(gateway):
    await tenant(gateway)
    created = await key(gateway)
    async with engine.connection() as connection:
        dump = str(await connection.fetch("SELECT * FROM gateway.api_keys"))
    assert "$argon2id$" in dump
    assert created.api_key[12:] not in dump


async def test_update_overrides_and_clear_inherits_again(gateway, client):
    await tenant(gateway)
    created = await key(gateway, limits=limits_pb2.Limits(rpm=5, tpm=6))
    updated = await gateway.call(
        gateway.keys.UpdateKey,
        k.UpdateKeyRequest(
            prefix=created.prefix,
            limits=limits_pb2.Limits(concurrent=2),
            grants=limits_pb2.Grants(allow_all_models=False, allowed_models=limits_pb2.ModelNames()),
            clear=["rpm"],
        ),
    )
    limits = updated.key.limits
    assert (limits.HasField("rpm"), limits.tpm, limits.concurrent) == (False, 6, 2)
    assert updated.key.grants.HasField("allow_all_models")
    assert updated.key.grants.HasField("allowed_models")
    assert updated.key.version == 2
    stored = await record(client, f"gateway:key:{created.prefix}")
    assert stored["grants"] == {"allow_all_models": False, "allowed_models": []}
    assert stored["version"] == 2
    assert stored["digest"]


async def test_revoked_key_is_negative_in_redis_and_stays_revoked(gateway, client):
    acme = await tenant(gateway)
    created = await key(gateway)
    request = k.RevokeKeyRequest(prefix=created.prefix, reason="leaked")
    for _ in range(2):
        answer = await gateway.call(gateway.keys.RevokeKey, request)
        assert answer.publication == APPLIED
        assert answer.key.status == k.KEY_STATUS_REVOKED
    assert await live(client, acme.id, f"k:{created.key.id}") == -2
    for method, message in (
        (gateway.keys.ResumeKey, k.ResumeKeyRequest(prefix=created.prefix)),
        (gateway.keys.SuspendKey, k.SuspendKeyRequest(prefix=created.prefix)),
        (gateway.keys.UpdateKey, k.UpdateKeyRequest(prefix=created.prefix, prompt_log=True)),
        (gateway.keys.RotateKey, k.RotateKeyRequest(prefix=created.prefix)),
    ):
        assert (await refused(gateway, method, message)).code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_suspension_of_tenant_and_key_is_lifted_by_resuming(gateway, client):
    acme = await tenant(gateway)
    created = await key(gateway)
    suspended = await gateway.call(gateway.tenants.SuspendTenant, t.SuspendTenantRequest(tenant="acme"))
    assert suspended.tenant.status == t.TENANT_STATUS_SUSPENDED
    assert await live(client, acme.id, f"t:{acme.id}") == -2
    await gateway.call(gateway.tenants.ResumeTenant, t.ResumeTenantRequest(tenant=acme.id))
    assert await live(client, acme.id, f"t:{acme.id}") == 3
    await gateway.call(gateway.keys.SuspendKey, k.SuspendKeyRequest(prefix=created.prefix))
    assert await live(client, acme.id, f"k:{created.key.id}") == -2
    resumed = await gateway.call(gateway.keys.ResumeKey, k.ResumeKeyRequest(prefix=created.key.id))
    assert resumed.key.status == k.KEY_STATUS_ACTIVE
    assert await live(client, acme.id, f"k:{created.key.id}") == 3


async def test_rotation_with_overlap_lets_the_old_key_expire(gateway, client):
    await tenant(gateway)
    created = await key(gateway, limits=limits_pb2.Limits(rpm=5))
    request = k.RotateKeyRequest(prefix=created.prefix)
    request.overlap.FromTimedelta(dt.timedelta(hours=1))
    rotated = await gateway.call(gateway.keys.RotateKey, request)
    assert rotated.prefix != created.prefix
    assert (rotated.key.name, rotated.key.limits.rpm) == ("prod", 5)
    assert rotated.replaced.status == k.KEY_STATUS_ACTIVE
    assert (await record(client, f"gateway:key:{rotated.prefix}"))["digest"]
    old = await record(client, f"gateway:key:{created.prefix}")
    remaining_s = old["expires_at_ms"] / 1000 - dt.datetime.now(dt.UTC).timestamp()
    assert 3500 < remaining_s < 3700


async def test_rotation_without_overlap_ends_the_old_key_at_once(gateway, client):
    acme = await tenant(gateway)
    created = await key(gateway)
    rotated = await gateway.call(gateway.keys.RotateKey, k.RotateKeyRequest(prefix=created.prefix))
    assert rotated.replaced.status == k.KEY_STATUS_REVOKED
    assert await live(client, acme.id, f"k:{created.key.id}") == -2
    assert await live(client, acme.id, f"k:{rotated.key.id}") == 1


async def test_every_fault_of_a_request_is_named_at_once(gateway):
    error = await refused(
        gateway,
        gateway.tenants.CreateTenant,
        t.CreateTenantRequest(
            name="No Good",
            limits=limits_pb2.Limits(rpm=0, budget_day=-1),
            grants=limits_pb2.Grants(allowed_models=limits_pb2.ModelNames(names=["x:cloud"])),
        ),
    )
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    for field in ("name must", "rpm must", "budget_day must", "allowed_models: name 1"):
        assert field in str(error.details())


BAD_REQUESTS = (
    (k.GetKeyRequest(prefix="nz_000000000"), grpc.StatusCode.NOT_FOUND),
    (k.GetKeyRequest(prefix="nz_" + "a" * 60), grpc.StatusCode.NOT_FOUND),
    (k.ListKeysRequest(page_size=1001), grpc.StatusCode.INVALID_ARGUMENT),
    (k.ListKeysRequest(page_token="!"), grpc.StatusCode.INVALID_ARGUMENT),
    (k.ListKeysRequest(page_token="WyJ4IiwieSJd"), grpc.StatusCode.INVALID_ARGUMENT),
    (k.ListKeysRequest(tenant="nobody"), grpc.StatusCode.NOT_FOUND),
    (k.CreateKeyRequest(tenant="nobody", name="x"), grpc.StatusCode.NOT_FOUND),
    (k.CreateKeyRequest(tenant="acme", name=" "), grpc.StatusCode.INVALID_ARGUMENT),
    (k.CreateKeyRequest(tenant="acme", name="x", prompt_log_retention_days=0), grpc.StatusCode.INVALID_ARGUMENT),
    (k.CreateKeyRequest(tenant="acme", name="x", expires_at=Timestamp(seconds=1)), grpc.StatusCode.INVALID_ARGUMENT),
    (
        k.CreateKeyRequest(tenant="acme", name="x", expires_at=Timestamp(seconds=2**62)),
        grpc.StatusCode.INVALID_ARGUMENT,
    ),
    (k.CreateKeyRequest(tenant="ac\x00me", name="x"), grpc.StatusCode.NOT_FOUND),
    (k.RevokeKeyRequest(prefix="nz\x00"), grpc.StatusCode.NOT_FOUND),
    (k.RevokeKeyRequest(prefix="nz_000000000", reason="\x00"), grpc.StatusCode.INVALID_ARGUMENT),
    (k.UpdateKeyRequest(prefix="nz_000000000"), grpc.StatusCode.NOT_FOUND),
    (k.RotateKeyRequest(prefix="nz_000000000", overlap=Duration(seconds=-1)), grpc.StatusCode.INVALID_ARGUMENT),
)


async def test_bad_request_is_refused_with_its_status(gateway):
    for request, code in BAD_REQUESTS:
        method = getattr(gateway.keys, type(request).__name__.removesuffix("Request"))
        error = await refused(gateway, method, request)
        assert error.code() is code, request
        assert "a" * 20 not in str(error.details())


async def test_a_second_tenant_of_the_same_name_is_refused(gateway):
    await tenant(gateway)
    error = await refused(gateway, gateway.tenants.CreateTenant, t.CreateTenantRequest(name="acme"))
    assert error.code() is grpc.StatusCode.ALREADY_EXISTS


async def test_validate_only_changes_nothing(gateway):
    await tenant(gateway)
    created = await key(gateway)
    draft = await key(gateway, name="other", validate_only=True)
    assert (draft.api_key, draft.prefix, draft.publication) == ("", "", publication_pb2.PUBLICATION_UNSPECIFIED)
    revoked = await gateway.call(gateway.keys.RevokeKey, k.RevokeKeyRequest(prefix=created.prefix, validate_only=True))
    assert revoked.key.status == k.KEY_STATUS_REVOKED
    rotated = await gateway.call(gateway.keys.RotateKey, k.RotateKeyRequest(prefix=created.prefix, validate_only=True))
    assert rotated.api_key == ""
    error = await refused(gateway, gateway.tenants.CreateTenant, t.CreateTenantRequest(name="acme", validate_only=True))
    assert error.code() is grpc.StatusCode.ALREADY_EXISTS
    listed = await gateway.call(gateway.keys.ListKeys, k.ListKeysRequest(include_ended=True))
    assert [(found.prefix, found.version) for found in listed.keys] == [(created.prefix, 1)]


async def test_lists_page_to_the_end(gateway):
    for number in range(5):
        await tenant(gateway, name=f"t{number}")
    names, token = [], ""
    while True:
        page = await gateway.call(gateway.tenants.ListTenants, t.ListTenantsRequest(page_size=2, page_token=token))
        names += [found.name for found in page.tenants]
        token = page.next_page_token
        if not token:
            break
    assert names == [f"t{number}" for number in range(5)]
    created = [
        await gateway.call(gateway.keys.CreateKey, k.CreateKeyRequest(tenant="t1", name=f"k{number}"))
        for number in range(3)
    ]
    await gateway.call(gateway.keys.RevokeKey, k.RevokeKeyRequest(prefix=created[1].prefix))
    first = await gateway.call(gateway.keys.ListKeys, k.ListKeysRequest(tenant="t1", page_size=1))
    second = await gateway.call(
        gateway.keys.ListKeys, k.ListKeysRequest(tenant="t1", page_size=1, page_token=first.next_page_token)
    )
    assert [first.keys[0].name, second.keys[0].name, second.next_page_token] == ["k0", "k2", ""]
    everything = await gateway.call(gateway.keys.ListKeys, k.ListKeysRequest(include_ended=True))
    assert [found.name for found in everything.keys] == ["k0", "k1", "k2"]


async def test_every_mutation_leaves_an_audit_row_without_secrets(gateway):
    await tenant(gateway)
    created = await key(gateway)
    await gateway.call(
        gateway.keys.RevokeKey,
        k.RevokeKeyRequest(prefix=created.prefix, reason=f"found {created.api_key} in a log"),
        token=OPERATOR_TOKEN,
    )
    await refused(gateway, gateway.tenants.CreateTenant, t.CreateTenantRequest(name="acme"))
    await key(gateway, name="draft", validate_only=True)
    await gateway.call(gateway.keys.ListKeys, k.ListKeysRequest())
    async with engine.connection() as connection:
        rows = await connection.fetch("SELECT * FROM control.operator_audit ORDER BY id")
    assert [(row["caller"], row["role"], row["method"], row["target"], row["outcome"]) for row in rows] == [
        ("admin", "admin", "CreateTenant", "acme", "OK"),
        ("admin", "admin", "CreateKey", "acme", "OK"),
        ("olga", "operator", "RevokeKey", created.prefix, "OK"),
        ("admin", "admin", "CreateTenant", "acme", "ALREADY_EXISTS"),
    ]
    assert created.api_key not in str(rows)
    assert ADMIN_TOKEN not in str(rows)


@pytest.mark.parametrize("reason", ["x" * 501, "two\nlines", "\x1b[31m"])
async def test_a_reason_that_breaks_its_rule_changes_nothing(gateway, reason):
    await gateway.call(gateway.tenants.CreateTenant, t.CreateTenantRequest(name="acme"))
    minted = await gateway.call(gateway.keys.CreateKey, k.CreateKeyRequest(tenant="acme", name="k"))
    calls = (
        (gateway.keys.RevokeKey, k.RevokeKeyRequest(prefix=minted.prefix, reason=reason)),
        (gateway.keys.SuspendKey, k.SuspendKeyRequest(prefix=minted.prefix, reason=reason)),
        (gateway.tenants.SuspendTenant, t.SuspendTenantRequest(tenant="acme", reason=reason)),
    )
    for method, request in calls:
        with pytest.raises(grpc.aio.AioRpcError, match="reason must have at most 500") as refused:
            await gateway.call(method, request)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    key = await gateway.call(gateway.keys.GetKey, k.GetKeyRequest(prefix=minted.prefix))
    assert key.key.status == k.KEY_STATUS_ACTIVE
