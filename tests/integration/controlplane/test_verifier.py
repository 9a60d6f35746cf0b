"""KeyVerifier: matches what was minted, refuses all else in the same way, takes no outage for a wrong key."""

import datetime as dt
from typing import Any

import grpc
import pytest

from controlplane.hashing import HashingPool
from controlplane.store import engine
from deploy.local.redis import Redis
from neuronetz.admin.v1 import key_pb2 as k
from neuronetz.admin.v1 import tenant_pb2
from neuronetz.state.v1 import state_pb2
from shared import apikey, keyspace
from tests.integration.controlplane.conftest import (
    DATAPLANE_TOKEN,
    PEPPER,
    Running,
    fresh_database,
    serving,
    settings_for,
)

MATCH = state_pb2.VerifyResponse.VERDICT_MATCH
MISMATCH = state_pb2.VerifyResponse.VERDICT_MISMATCH


async def verdict(gateway: Running, api_key: str) -> Any:
    request = state_pb2.VerifyRequest(api_key=api_key)
    answer = await gateway.call(gateway.verifier.Verify, request, token=DATAPLANE_TOKEN)
    return answer.verdict


async def minted(gateway: Running) -> Any:
    await gateway.call(gateway.tenants.CreateTenant, tenant_pb2.CreateTenantRequest(name="acme"))
    return await gateway.call(gateway.keys.CreateKey, k.CreateKeyRequest(tenant="acme", name="prod"))


def with_other_secret(api_key: str) -> str:
    """A key of the same prefix whose checksum is right."""
    other = apikey.mint(PEPPER.encode())
    body = api_key[: apikey.PREFIX_LENGTH] + other[apikey.PREFIX_LENGTH : -apikey.CHECKSUM_LENGTH]
    return body + apikey._checksum(PEPPER.encode(), body)


async def make_cold(client, prefix: str) -> None:
    name = keyspace.key_record(prefix)
    raw = await client.get(name)
    await client.set(name, raw[: raw.index(b',"digest"')] + b"}")


async def test_only_the_right_key_matches(gateway, client):
    created = await minted(gateway)
    for warm in (True, False):
        assert await verdict(gateway, with_other_secret(created.api_key)) == MISMATCH
        assert await verdict(gateway, apikey.mint(PEPPER.encode())) == MISMATCH
        assert await verdict(gateway, created.api_key[:-1] + "!") == MISMATCH
        assert await verdict(gateway, "") == MISMATCH
        assert await verdict(gateway, "\x00" * 63) == MISMATCH
        if warm:
            await make_cold(client, created.prefix)
    assert b"digest" not in await client.get(keyspace.key_record(created.prefix))
    assert await verdict(gateway, created.api_key) == MATCH
    assert b"digest" in await client.get(keyspace.key_record(created.prefix))


async def test_a_cold_key_that_has_ended_does_not_match(gateway, client):
    created = await minted(gateway)
    await make_cold(client, created.prefix)
    async with engine.connection() as connection:
        await connection.execute("UPDATE gateway.api_keys SET expires_at = $1", dt.datetime.now(dt.UTC))
    assert await verdict(gateway, created.api_key) == MISMATCH
    await gateway.call(gateway.keys.RevokeKey, k.RevokeKeyRequest(prefix=created.prefix))
    assert await verdict(gateway, created.api_key) == MISMATCH


async def test_a_full_pool_and_a_lost_redis_are_no_verdict(tmp_path, postgres_server, monkeypatch):
    with Redis(tmp_path) as server:
        settings = settings_for(await fresh_database(postgres_server), server.url, GATEWAY_PUBLISH_TIMEOUT_S="0.5")
        async with serving(settings) as gateway:
            created = await minted(gateway)
            monkeypatch.setattr(HashingPool, "_has_room", lambda _: False)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await verdict(gateway, apikey.mint(PEPPER.encode()))
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            monkeypatch.undo()
            server.stop()
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await verdict(gateway, created.api_key)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
            assert created.api_key not in str(refused.value)
