"""BackendService and ModelService of a whole control plane, over gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import grpc
import pytest

from controlplane import app
from controlplane.publish import connection
from deploy.local.ports import free_port
from deploy.local.redis import Redis
from deploy.mock_ollama.bad_content import Status
from deploy.mock_ollama.faults import Hang
from deploy.mock_ollama.settings import Settings as MockSettings
from neuronetz.admin.v1 import backend_pb2 as pb
from neuronetz.admin.v1 import backend_pb2_grpc, model_pb2, model_pb2_grpc, publication_pb2
from shared import keyspace, records
from shared.records import ConfigRecord
from shared.sealing import Sealer
from tests.integration import servers

TOKEN = "canary-of-a-backend"
_AUTHORIZATION = (("authorization", "Bearer admin-token-for-tests"),)


class Admin:
    """The two services as an administrator calls them."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._backends = backend_pb2_grpc.BackendServiceStub(channel)
        self._models = model_pb2_grpc.ModelServiceStub(channel)

    async def add(self, name: str, url: str, **fields: Any) -> pb.AddBackendResponse:
        request = pb.AddBackendRequest(name=name, url=url, **fields)
        return await self._backends.AddBackend(request, metadata=_AUTHORIZATION, timeout=30)

    async def remove(self, name: str, **fields: Any) -> pb.RemoveBackendResponse:
        request = pb.RemoveBackendRequest(name=name, **fields)
        return await self._backends.RemoveBackend(request, metadata=_AUTHORIZATION, timeout=30)

    async def backends(self) -> list[pb.Backend]:
        request = pb.ListBackendsRequest()
        return list((await self._backends.ListBackends(request, metadata=_AUTHORIZATION, timeout=30)).backends)

    async def pages(self, size: int) -> list[list[str]]:
        """The names of all backends, page by page, from either list."""
        pages, token = [], ""
        while True:
            request = pb.ListBackendsRequest(page_size=size, page_token=token)
            answer = await self._backends.ListBackends(request, metadata=_AUTHORIZATION, timeout=30)
            of_models = await self._models.ListModels(
                model_pb2.ListModelsRequest(page_size=size, page_token=token), metadata=_AUTHORIZATION, timeout=10
            )
            pages.append([backend.name for backend in answer.backends])
            assert [entry.backend for entry in of_models.backends] == pages[-1]
            assert of_models.next_page_token == answer.next_page_token
            token = answer.next_page_token
            if not token:
                return pages

    async def probe(self, name: str = "") -> list[pb.ProbeResult]:
        request = pb.ProbeBackendsRequest(name=name)
        return list((await self._backends.ProbeBackends(request, metadata=_AUTHORIZATION, timeout=30)).results)

    async def models(self, backend: str = "") -> model_pb2.ListModelsResponse:
        request = model_pb2.ListModelsRequest(backend=backend)
        return await self._models.ListModels(request, metadata=_AUTHORIZATION, timeout=30)

    async def until_polled(self, *names: str) -> list[pb.Backend]:
        async with asyncio.timeout(30):
            while True:
                found = await self.backends()
                if {backend.name for backend in found if backend.healthy} >= set(names):
                    return found
                await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def serving(database_url: str, redis_url: str, **settings: str) -> AsyncIterator[Admin]:
    plane = app.create(servers.settings_for(database_url, redis_url, **settings))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(plane.run())
        async with asyncio.timeout(20):
            while not plane.readiness.ready:
                await asyncio.sleep(0.01)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{plane.port}") as channel:
            yield Admin(channel)
        plane.stop()


@pytest.fixture
async def static(mocks):
    return await mocks("llama3:8b", "shared:1b", name="static", settings=MockSettings(token=TOKEN))


@pytest.fixture
async def admin(database_url, redis, static) -> AsyncIterator[Admin]:
    backends = json.dumps([{"name": "static", "url": static.url, "token": TOKEN}])
    async with serving(database_url, redis.url, OLLAMA_BACKENDS=backends) as admin:
        yield admin


async def config_of(client) -> ConfigRecord:
    return records.decode(records.decoder(ConfigRecord), await client.get(keyspace.CONFIG))


def status_of(caught: pytest.ExceptionInfo[grpc.aio.AioRpcError]) -> tuple[grpc.StatusCode, str]:
    return caught.value.code(), caught.value.details() or ""


async def test_an_added_backend_is_probed_published_and_polled_at_once(admin, mocks, client):
    added = await mocks("mistral:7b", "shared:1b", name="added", settings=MockSettings(token=TOKEN))
    answer = await admin.add("added", added.url, token=TOKEN)
    assert answer.publication == publication_pb2.PUBLICATION_APPLIED
    assert (answer.backend.token, answer.backend.models) == ("***", 2)
    found = await admin.until_polled("static", "added")
    assert [(backend.name, backend.origin) for backend in found] == [
        ("static", pb.BACKEND_ORIGIN_STATIC),
        ("added", pb.BACKEND_ORIGIN_DYNAMIC),
    ]
    assert [backend.token for backend in found] == ["***", "***"]
    assert [backend.models for backend in found] == [2, 2]
    config = await config_of(client)
    assert [(backend.name, backend.priority) for backend in config.backends] == [("static", 0), ("added", 1)]
    sealed = config.backends[1].sealed_token
    assert sealed is not None
    assert Sealer(bytes(32)).open("added", sealed).reveal() == TOKEN
    models = await admin.models()
    assert [entry.backend for entry in models.backends] == ["static", "added"]
    assert {model.name for model in models.backends[1].models} == {"mistral:7b", "shared:1b"}
    assert (models.union_count, models.cached_count) == (3, 3)
    assert models.cached_until.seconds > 0
    only = await admin.models("added")
    assert (len(only.backends), only.union_count, only.cached_count) == (1, 2, 3)


async def test_the_line_for_an_environment_file_is_answered_without_tokens(admin, static):
    shown, added = [json.dumps({"name": name, "url": static.url, "token": "***"}) for name in ("static", "added")]
    dry = await admin.add("added", static.url, token=TOKEN, priority=3, validate_only=True)
    assert dry.environment_line == f"OLLAMA_BACKENDS=[{shown}, {added}]"
    assert len(await admin.backends()) == 1

    await admin.add("added", static.url, token=TOKEN)
    again = await admin.add("added", static.url, token=TOKEN, replace=True, weight=2)
    assert again.environment_line.count('"name": "added"') == 1
    assert '"weight": 2' in again.environment_line
    removed = await admin.remove("added")
    assert removed.environment_line == f"OLLAMA_BACKENDS=[{shown}]"
    assert TOKEN not in repr([dry, again, removed])


async def test_backends_and_their_models_are_listed_page_by_page(admin, static):
    for name in ("b", "c"):
        await admin.add(name, static.url, token=TOKEN)
    assert await admin.pages(2) == [["static", "b"], ["c"]]
    assert await admin.pages(3) == [["static", "b", "c"]]
    with pytest.raises(grpc.aio.AioRpcError, match="page_size"):
        await admin.pages(-1)


async def test_no_token_is_shown_or_stored_in_clear(admin, static, client, database_url):
    await admin.add("added", static.url, token=TOKEN)
    await admin.until_polled("static", "added")
    shown = repr(await admin.backends()) + repr(await admin.probe()) + repr(await admin.models())
    stored = b"".join([await client.get(key) for key in (keyspace.CONFIG, keyspace.MODELS_DISCOVERED)]).decode()
    reader = await asyncpg.connect(database_url, ssl=False)
    try:
        query = "SELECT b::text, a::text FROM control.backends b, control.operator_audit a"
        rows = [repr(row) for row in await reader.fetch(query)]
    finally:
        await reader.close()
    assert rows
    assert TOKEN not in shown + stored + "".join(rows)


async def test_a_backend_that_fails_its_probe_is_not_added_unless_asked_to(admin, static, mocks):
    for url, fields, problem in [
        ("http://127.0.0.1:1", {}, "connection refused"),
        (static.url, {}, "unauthorized"),
        (static.url, {"token": "wrong"}, "unauthorized"),
    ]:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await admin.add("added", url, **fields)
        code, text = status_of(caught)
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert problem in text
        assert "127.0.0.1" not in text
    assert [backend.name for backend in await admin.backends()] == ["static"]
    await admin.add("added", "http://127.0.0.1:1", no_validate=True)
    assert [backend.name for backend in await admin.backends()] == ["static", "added"]


async def test_a_dry_run_checks_everything_and_adds_nothing(admin, static, client):
    answer = await admin.add("added", static.url, token=TOKEN, validate_only=True)
    assert answer.publication == publication_pb2.PUBLICATION_UNSPECIFIED
    assert answer.backend.models == 2
    assert [backend.name for backend in await admin.backends()] == ["static"]
    # Not the revision: a process that starts may publish the same backends twice.
    assert [backend.name for backend in (await config_of(client)).backends] == ["static"]
    with pytest.raises(grpc.aio.AioRpcError):
        await admin.add("added", static.url, validate_only=True)


async def test_a_name_that_is_taken_needs_replace_and_keeps_its_place(admin, mocks):
    first = await mocks(name="first")
    await admin.add("one", first.url, priority=5)
    await admin.add("two", first.url)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await admin.add("one", first.url)
    assert status_of(caught)[0] is grpc.StatusCode.ALREADY_EXISTS
    second = await mocks("new:1b", name="second")
    answer = await admin.add("one", second.url, replace=True)
    assert answer.backend.priority == 5
    assert [backend.name for backend in await admin.backends()] == ["static", "one", "two"]
    assert (await admin.backends())[1].url == second.url


async def test_a_weight_is_published_and_kept_when_a_backend_is_replaced(admin, static, client):
    answer = await admin.add("heavy", static.url, token=TOKEN, priority=5, weight=3)
    assert answer.backend.weight == 3
    assert (await admin.add("heavy", static.url, token=TOKEN, replace=True, validate_only=True)).backend.weight == 3
    assert (await admin.add("heavy", static.url, token=TOKEN, replace=True, priority=7)).backend.weight == 3
    assert [(backend.name, backend.weight) for backend in await admin.backends()] == [("static", 1), ("heavy", 3)]
    assert [backend.weight for backend in (await config_of(client)).backends] == [1, 3]
    assert (await admin.add("heavy", static.url, token=TOKEN, replace=True, weight=2)).backend.weight == 2
    assert [backend.weight for backend in (await config_of(client)).backends] == [1, 2]


async def test_a_static_backend_hides_an_added_one_of_its_name(database_url, redis, static, client):
    added = json.dumps([{"name": "other", "url": static.url, "token": TOKEN}])
    async with serving(database_url, redis.url, OLLAMA_BACKENDS=added) as admin:
        await admin.add("static", "http://127.0.0.1:1", no_validate=True)
        assert [backend.name for backend in await admin.backends()] == ["other", "static"]
    now_static = json.dumps([{"name": "static", "url": static.url, "token": TOKEN, "weight": 2}])
    async with serving(database_url, redis.url, OLLAMA_BACKENDS=now_static) as admin:
        [backend] = await admin.until_polled("static")
        assert (backend.origin, backend.url, backend.weight) == (pb.BACKEND_ORIGIN_STATIC, static.url, 2)
        async with asyncio.timeout(30):
            while [backend.url for backend in (await config_of(client)).backends] != [static.url]:
                await asyncio.sleep(0.02)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await admin.remove("static", validate_only=True)
        assert status_of(caught)[0] is grpc.StatusCode.FAILED_PRECONDITION


@pytest.mark.parametrize("call", ["add", "replace", "remove"])
async def test_a_static_backend_cannot_be_changed_by_rpc(call, admin, static):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        if call == "remove":
            await admin.remove("static")
        else:
            await admin.add("static", static.url, token=TOKEN, replace=call == "replace")
    assert status_of(caught)[0] is grpc.StatusCode.FAILED_PRECONDITION


async def test_every_fault_of_a_request_is_named_at_once(admin):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await admin.add("A", "ollama", token="a b", header="Host", scheme="x y", priority=-1, weight=0)
    code, text = status_of(caught)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert all(field in text for field in ("name", "url", "token", "header", "scheme", "priority", "weight"))


async def test_a_removed_backend_is_gone_from_everything(admin, mocks, client):
    added = await mocks("mistral:7b", name="added")
    await admin.add("added", added.url)
    await admin.until_polled("static", "added")
    await admin.remove("added", validate_only=True)
    assert len(await admin.backends()) == 2
    assert (await admin.remove("added")).publication == publication_pb2.PUBLICATION_APPLIED
    assert [backend.name for backend in (await config_of(client)).backends] == ["static"]
    async with asyncio.timeout(30):
        while (await admin.models()).cached_count != 2:
            await asyncio.sleep(0.02)
    calls = (
        admin.remove("added"),
        admin.remove("added", validate_only=True),
        admin.models("added"),
        admin.probe("added"),
    )
    for call in calls:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert status_of(caught)[0] is grpc.StatusCode.NOT_FOUND


async def test_a_probe_asks_all_at_once_with_their_own_headers_and_says_how_each_answered(admin, static, mocks):
    slow = await mocks(name="slow")
    keyed = await mocks("one", name="keyed")
    await admin.add("slow", slow.url)
    await admin.add("keyed", keyed.url, token=TOKEN, header="X-Api-Key", scheme="none")
    await admin.add("gone", "http://127.0.0.1:1", no_validate=True)
    slow.script(Hang(), path="/api/tags", times=None)
    started_s = asyncio.get_running_loop().time()
    results = {result.name: result for result in await admin.probe()}
    # One deadline of two seconds for all of them, with room for a busy machine; the call itself has thirty.
    assert asyncio.get_running_loop().time() - started_s < 8
    assert (results["static"].ok, results["static"].models) == (True, 2)
    assert (results["slow"].ok, results["slow"].problem) == (False, "timeout")
    assert (results["gone"].ok, results["gone"].problem) == (False, "connection refused")
    assert results["keyed"].ok
    assert ("X-Api-Key", TOKEN) in keyed.requests[-1].headers
    assert all("Authorization" not in dict(request.headers) for request in keyed.requests)
    assert [result.name for result in await admin.probe("keyed")] == ["keyed"]


async def test_an_unhealthy_backend_says_why_and_never_where(admin, mocks):
    added = await mocks("one", name="added")
    await admin.add("added", added.url)
    await admin.until_polled("static", "added")
    added.script(Status(status=500), path="/api/tags", times=None)
    await admin.add("other", "http://127.0.0.1:1", no_validate=True)
    async with asyncio.timeout(30):
        while True:
            found = {backend.name: backend for backend in await admin.backends()}
            if found["added"].problem == "status 500" and found["other"].problem == "connection refused":
                break
            await asyncio.sleep(0.02)
    assert not found["added"].healthy
    assert found["added"].models == 1
    assert found["added"].last_seen_at.seconds > 0
    assert not found["other"].HasField("last_seen_at")


async def test_a_change_while_redis_is_away_is_pending_and_applied_later(database_url, tmp_path, mocks):
    mock = await mocks("one", name="a")
    with Redis(tmp_path) as server:
        async with (
            serving(database_url, server.url, OLLAMA_BASE_URL=mock.url) as admin,
            connection.connect(server.url, connect_timeout_s=1.0) as client,
        ):
            await admin.until_polled("default")
            await asyncio.to_thread(server.kill)
            assert (await admin.add("added", mock.url)).publication == publication_pb2.PUBLICATION_PENDING
            assert [backend.name for backend in await admin.backends()] == ["default", "added"]
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await admin.models()
            assert status_of(caught)[0] is grpc.StatusCode.UNAVAILABLE
            await asyncio.to_thread(server.start)
            async with asyncio.timeout(30):
                # Killed before it was written to disk, the configuration is missing until it is published anew.
                while not await client.exists(keyspace.CONFIG) or len((await config_of(client)).backends) < 2:
                    await asyncio.sleep(0.02)
            await admin.until_polled("default", "added")


async def test_a_second_replica_lists_what_the_first_was_told(admin, database_url, redis, static, mocks):
    added = await mocks("one", name="added")
    backends = json.dumps([{"name": "static", "url": static.url, "token": TOKEN}])
    async with serving_another(database_url, redis.url, OLLAMA_BACKENDS=backends) as second:
        await admin.add("added", added.url)
        found = await second.until_polled("static", "added")
        assert [backend.name for backend in found] == ["static", "added"]


@contextlib.asynccontextmanager
async def serving_another(database_url: str, redis_url: str, **settings: str) -> AsyncIterator[Admin]:
    """A replica in a process of its own: the pool of Postgres is one per process."""
    port = free_port()
    settings["GATEWAY_ADMIN_BIND"] = f"127.0.0.1:{port}"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "controlplane",
        env=os.environ | servers.environment(database_url, redis_url, **settings),
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await channel.channel_ready()
            yield Admin(channel)
    finally:
        process.terminate()
        await process.wait()
