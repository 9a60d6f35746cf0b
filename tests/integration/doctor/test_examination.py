"""The whole look at servers without a gateway: what is missing is said, what is there is looked at."""

from __future__ import annotations

import asyncio
import json

import pytest

from controlplane.doctor import Deployment, Report, Status, examine
from deploy.mock_ollama import MockOllama
from shared import keyspace, records
from shared.clock import SystemClock
from shared.records import BackendRecord, ConfigRecord
from shared.redaction import Secret
from shared.sealing import Sealer
from tests.integration.servers import environment

pytestmark = pytest.mark.redis


def status_of(report: Report) -> dict[str, Status]:
    return {finding.name: finding.status for finding in report.findings}


async def examined(environ: dict[str, str]) -> Report:
    return await examine(Deployment.read(environ), clock=SystemClock(), timeout_s=5)


async def test_servers_without_planes_are_looked_at_and_the_planes_are_missed(redis, database_url, strong):
    async with MockOllama() as mock:
        environ = environment(database_url, redis.url, **strong, OLLAMA_BASE_URL=mock.url)
        found = status_of(await examined(environ))

    assert {name for name, status in found.items() if status is Status.FAILED} == {"state.fences", "data-planes"}
    assert found["backends.default.models"] is Status.OK


async def test_backends_that_requests_go_to_are_asked_and_not_those_of_this_environment(redis, client, strong):
    async with MockOllama() as mock:
        sealed = Sealer(bytes(32)).seal("sealed", Secret("a-token-for-this-test"))
        config = ConfigRecord(
            revision=1,
            backends=(
                BackendRecord(name="used", url=mock.url),
                BackendRecord(name="sealed", url=mock.url, sealed_token=sealed),
            ),
        )
        await client.set(keyspace.CONFIG, records.encode(config))
        found = status_of(await examined({"REDIS_URL": redis.url, **strong, "OLLAMA_BASE_URL": "http://127.0.0.1:1"}))

    assert found["backends.used.models"] is Status.OK
    assert found["backends.sealed.models"] is Status.FAILED
    assert "backends.default.models" not in found
    assert (found["postgres"], found["clocks.postgres"]) == (Status.SKIPPED, Status.SKIPPED)


async def test_servers_that_never_answer_are_given_up_at_the_deadline_all_at_once(strong):
    async def keep_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(keep_silent, "127.0.0.1", 0) as server:
        place = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        environ = environment(f"postgres://u:word@{place}/x", f"redis://u:word@{place}/0", **strong)
        deployment = Deployment.read(environ | {"OLLAMA_BASE_URL": f"http://{place}"})
        async with asyncio.timeout(10):
            report = await examine(deployment, clock=SystemClock(), timeout_s=0.5)

    failed = {finding.name for finding in report.findings if finding.status is Status.FAILED}
    assert failed == {"redis.reachable", "postgres.reachable", "backends.default.models", "backends.default.cloud"}


async def test_an_address_that_is_none_is_a_finding_without_its_text(strong):
    report = await examined({"REDIS_URL": "redis://:pass-word@host:port/0", "OLLAMA_BACKENDS": "[]", **strong})

    assert status_of(report)["settings"] is Status.SKIPPED
    assert any("REDIS_URL" in finding.seen for finding in report.findings if finding.status is Status.FAILED)
    assert "pass-word" not in repr(report)


async def test_when_nothing_answers_each_thing_is_said_once_and_no_secret(strong):
    environ = environment("postgres://u:pass-word@127.0.0.1:1/x", "redis://u:pass-word@127.0.0.1:1/0", **strong)
    report = await examined(environ | {"OLLAMA_BACKENDS": json.dumps([])})

    found = status_of(report)
    assert {name for name, status in found.items() if status is Status.FAILED} == {
        "redis.reachable",
        "postgres.reachable",
    }
    assert found["backends"] is Status.SKIPPED
    assert report.status is Status.FAILED
    assert not [secret for secret in (*strong.values(), "pass-word") if secret in repr(report)]
