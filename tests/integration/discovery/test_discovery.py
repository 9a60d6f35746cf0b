"""Discovery against mock Ollamas and a real Redis."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest
from redis.asyncio import Redis as RedisClient

from controlplane.errors import RedisUnavailableError, StoreUnavailableError
from controlplane.ollama.client import OllamaClient
from controlplane.ollama.poller import Poller
from controlplane.publish import connection
from controlplane.publish.discovered import DiscoveredState, JobLock
from controlplane.tasks import discover
from controlplane.tasks.discover import Discovery
from deploy.local.redis import Redis
from deploy.mock_ollama import MockOllama
from deploy.mock_ollama.bad_content import HostileTags, Status
from deploy.mock_ollama.faults import Hang, Slow
from deploy.mock_ollama.settings import Settings
from shared import keyspace
from shared.records import BackendRecord, DiscoveredRecord
from shared.redaction import Secret
from shared.sealing import Sealer
from tests.integration.hubs import hub_over

SEALER = Sealer(bytes(32))


class Listed:
    """Backends as a test lists them; ``away`` stands for a Postgres that does not answer."""

    def __init__(self, *mocks: MockOllama) -> None:
        self.records = [BackendRecord(name=mock.name, url=mock.url) for mock in mocks]
        self.away = False

    async def backends(self) -> Sequence[BackendRecord]:
        if self.away:
            raise StoreUnavailableError("away")
        return self.records


def discovery_of(
    client: RedisClient, source: Listed, *, refresh_s: float = 60.0, ttl_s: float = 120.0, show_budget_s: float = 3.0
) -> Discovery:
    return Discovery(
        source=source,
        sealer=SEALER,
        poller=Poller(OllamaClient(), show_budget_s=show_budget_s),
        state=DiscoveredState(client, timeout_s=1.0),
        watchers=hub_over(client),
        lock=JobLock(client, job=discover.JOB, timeout_s=1.0),
        refresh_s=refresh_s,
        ttl_s=ttl_s,
    )


@contextlib.asynccontextmanager
async def running(*discoveries: Discovery) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(each.run()) for each in discoveries]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)


async def polled(discovery: Discovery) -> DiscoveredRecord:
    """The record after one forced poll."""
    assert await discovery._lock.acquire(ttl_s=5, force=True)
    await discovery.poll()
    record = await discovery.read()
    assert record is not None
    return record


async def eventually[T](condition: Callable[[], Awaitable[T]], timeout_s: float = 30.0) -> T:
    async with asyncio.timeout(timeout_s):
        while not (result := await condition()):
            await asyncio.sleep(0.01)
        return result


def names(record: DiscoveredRecord | None, backend: str) -> set[str]:
    assert record is not None
    return {model.name for entry in record.backends if entry.backend == backend for model in entry.models}


def asked(mock: MockOllama, path: str) -> int:
    return sum(request.path == path for request in mock.requests)


async def test_models_of_all_backends_are_published_with_what_is_known_of_them(mocks, client):
    first, second = await mocks(name="first"), await mocks("llama3.2:latest", "mistral:7b", name="second")
    record = await polled(discovery_of(client, Listed(first, second)))
    assert [entry.backend for entry in record.backends] == ["first", "second"]
    assert names(record, "second") == {"llama3.2:latest", "mistral:7b"}
    qwen = next(model for model in record.backends[0].models if model.name == "qwen3:8b")
    assert qwen.canonical == "registry.ollama.ai/library/qwen3:8b"
    assert qwen.capabilities == ("completion", "tools", "thinking")
    assert (qwen.context_length, qwen.embedding_length) == (40960, 4096)
    llama = next(model for model in record.backends[0].models if model.name == "llama3.2:latest")
    assert llama.template_bytes > qwen.template_bytes > 0
    ttl_ms = await client.pttl(keyspace.MODELS_DISCOVERED)
    assert 119_000 < ttl_ms <= 120_000


async def test_a_model_is_asked_about_once_per_digest(mocks, client):
    mock = await mocks("one", "two", name="a")
    discovery = discovery_of(client, Listed(mock))
    await polled(discovery)
    await polled(discovery)
    assert asked(mock, "/api/show") == 2
    mock.set_models(["one", "two", "three"])
    record = await polled(discovery)
    assert asked(mock, "/api/show") == 3
    assert names(record, "a") == {"one:latest", "two:latest", "three:latest"} or len(names(record, "a")) == 3
    # Another process reads what this one has found out.
    record = await polled(discovery_of(client, Listed(mock)))
    assert asked(mock, "/api/show") == 3
    assert all(model.context_length for model in record.backends[0].models)


async def test_a_model_that_cannot_be_described_is_listed_and_asked_about_again(mocks, client):
    mock = await mocks("one", "two", name="a")
    mock.script(Status(status=500), path="/api/show", model="one")
    discovery = discovery_of(client, Listed(mock))
    record = await polled(discovery)
    assert sorted(model.context_length > 0 for model in record.backends[0].models) == [False, True]
    record = await polled(discovery)
    assert all(model.context_length for model in record.backends[0].models)
    assert asked(mock, "/api/show") == 3


async def test_many_new_models_are_asked_about_a_part_at_a_time(mocks, client):
    mock = await mocks(*(f"m{n}" for n in range(40)), name="a")
    # Some answer at once, and then nobody does until the time is over.
    mock.script(Hang(), path="/api/show", nth=9, times=None)
    discovery = discovery_of(client, Listed(mock), refresh_s=60, show_budget_s=1.0)
    record = await polled(discovery)
    assert len(record.backends[0].models) == 40
    described = sum(model.context_length > 0 for model in record.backends[0].models)
    assert 0 < described < 40
    assert await client.pttl(keyspace.job_lock(discover.JOB)) <= 1000
    mock.clear_scripts()
    async with running(discovery):
        await eventually(lambda: _all_described(discovery))


async def _all_described(discovery: Discovery) -> bool:
    record = await discovery.read()
    return record is not None and all(model.context_length for model in record.backends[0].models)


async def test_a_newly_pulled_model_is_there_after_the_next_refresh_and_a_deleted_one_goes(mocks, client):
    mock = await mocks("one", name="a")
    discovery = discovery_of(client, Listed(mock), refresh_s=0.1, ttl_s=5)
    async with running(discovery):
        await eventually(lambda: _has(discovery, "a", 1))
        mock.set_models(["one", "two"])
        await eventually(lambda: _has(discovery, "a", 2))
        mock.set_models(["one"])
        await eventually(lambda: _has(discovery, "a", 1))


async def _has(discovery: Discovery, backend: str, count: int) -> bool:
    return len(names(await discovery.read() or DiscoveredRecord(revision=0, expires_at_ms=0), backend)) == count


@pytest.mark.parametrize("fault", [Status(status=500), HostileTags(shape="giant", size=2_000_000), Hang()], ids=repr)
async def test_a_bad_answer_keeps_the_last_good_list_and_says_why(fault, mocks, client):
    good, flapping = await mocks("one", name="good"), await mocks("two", name="flapping")
    discovery = discovery_of(client, Listed(good, flapping))
    await polled(discovery)
    flapping.script(fault, path="/api/tags", times=None)
    good.set_models(["one", "three"])
    record = await polled(discovery)
    assert len(names(record, "good")) == 2
    assert len(names(record, "flapping")) == 1
    assert record.backends[1].problem in {"status 500", "too large", "timeout"}
    assert discovery.last_polls["flapping"].problem == record.backends[1].problem
    flapping.clear_scripts()
    record = await polled(discovery)
    assert record.backends[1].problem == ""


async def test_without_any_good_answer_what_was_known_ends_by_itself(mocks, client):
    mock = await mocks("one", name="a")
    discovery = discovery_of(client, Listed(mock), refresh_s=0.1, ttl_s=1)
    async with running(discovery):
        await eventually(lambda: _has(discovery, "a", 1))
        mock.script(Status(status=500), path="/api/tags", times=None)
        await eventually(lambda: _has(discovery, "a", 0))
        assert await client.exists(keyspace.MODELS_DISCOVERED) == 0
        mock.clear_scripts()
        await eventually(lambda: _has(discovery, "a", 1))


async def test_nothing_is_published_when_nothing_was_ever_seen(client):
    source = Listed()
    source.records = [BackendRecord(name="a", url="http://127.0.0.1:1")]
    discovery = discovery_of(client, source)
    assert await discovery._lock.acquire(ttl_s=5)
    await discovery.poll()
    assert await discovery.read() is None
    assert discovery.last_polls["a"].problem == "connection refused"


async def test_of_two_replicas_one_polls_per_interval(mocks, client, redis):
    mock = await mocks("one", name="a")
    async with connection.connect(redis.url, connect_timeout_s=1.0) as other:
        replicas = [discovery_of(each, Listed(mock), refresh_s=0.5, ttl_s=5) for each in (client, other)]
        async with running(*replicas):
            # The first poll of each process is its own.
            await eventually(lambda: _asked(mock, 2))
            before = asked(mock, "/api/tags")
            started_s = asyncio.get_running_loop().time()
            await eventually(lambda: _asked(mock, before + 4))
            assert asyncio.get_running_loop().time() - started_s > 4 * 0.5 - 0.6
            assert await eventually(lambda: _has(replicas[1], "a", 1))


async def _asked(mock: MockOllama, times: int) -> bool:
    return asked(mock, "/api/tags") >= times


async def test_the_death_of_the_replica_that_polls_heals(mocks, client):
    mock = await mocks("one", name="a")
    dead = JobLock(client, job=discover.JOB, timeout_s=1.0)
    assert await dead.acquire(ttl_s=0.5)
    discovery = discovery_of(client, Listed(mock), refresh_s=0.4, ttl_s=5)
    # Not its first round, which it would force.
    assert not await discovery._lock.acquire(ttl_s=1)
    async with running(discovery):
        await eventually(lambda: _has(discovery, "a", 1))
        count = asked(mock, "/api/tags")
        assert await dead.acquire(ttl_s=0.5, force=True)
        await eventually(lambda: _asked(mock, count + 1))


async def test_a_wake_polls_at_once_and_overrules_a_poll_with_older_backends(mocks, client):
    first, second = await mocks("one", name="first"), await mocks("two", name="second")
    source = Listed(first)
    slow = discovery_of(client, source, refresh_s=60)
    first.script(Slow(before_headers_ms=300), path="/api/tags")
    other_source = Listed(first, second)
    other = discovery_of(client, other_source, refresh_s=60)
    async with running(slow):
        await eventually(lambda: _asked(first, 1))
        async with running(other):
            other.wake()
            await eventually(lambda: _has(other, "second", 1))
            await eventually(lambda: _finished(first))
            assert await _has(other, "second", 1)
            source.records = other_source.records[1:]
            slow.wake()
            await eventually(lambda: _has(slow, "first", 0))


async def _finished(mock: MockOllama) -> bool:
    return all(request.is_over for request in mock.requests)


async def test_a_redis_that_lost_everything_is_filled_within_seconds(mocks, client):
    mock = await mocks("one", name="a")
    discovery = discovery_of(client, Listed(mock), refresh_s=60)
    async with running(discovery):
        await eventually(lambda: _has(discovery, "a", 1))
        await client.flushall()
        await eventually(lambda: _has(discovery, "a", 1))


async def test_what_cannot_be_read_in_redis_is_replaced(mocks, client):
    mock = await mocks("one", name="a")
    await client.set(keyspace.MODELS_DISCOVERED, b"\xff no record")
    assert len(names(await polled(discovery_of(client, Listed(mock))), "a")) == 1


async def test_postgres_away_does_not_stop_the_polls(mocks, client):
    mock = await mocks("one", name="a")
    source = Listed(mock)
    discovery = discovery_of(client, source)
    await polled(discovery)
    source.away = True
    mock.set_models(["one", "two"])
    assert len(names(await polled(discovery), "a")) == 2
    with pytest.raises(StoreUnavailableError):
        await discovery_of(client, source).poll()


async def test_redis_away_is_waited_for(mocks, tmp_path):
    mock = await mocks("one", name="a")
    with Redis(tmp_path) as server:
        async with connection.connect(server.url, connect_timeout_s=1.0) as client:
            discovery = discovery_of(client, Listed(mock), refresh_s=0.5, ttl_s=5)
            async with running(discovery):
                await eventually(lambda: _has(discovery, "a", 1))
                await asyncio.to_thread(server.kill)
                with pytest.raises(RedisUnavailableError):
                    await discovery.read()
                mock.set_models(["one", "two"])
                await asyncio.to_thread(server.start)
                await eventually(lambda: _has(discovery, "a", 2))


async def test_a_credential_of_another_sealing_key_is_named_and_hurts_nobody_else(mocks, client):
    good, locked = await mocks("one", name="good"), await mocks("two", name="locked", settings=Settings(token="t"))
    source = Listed(good, locked)
    source.records[1] = BackendRecord(
        name="locked", url=locked.url, sealed_token=Sealer(b"k" * 32).seal("locked", Secret("t"))
    )
    record = await polled(discovery_of(client, source))
    assert record.backends[1].problem == discover.UNOPENED
    source.records[1] = BackendRecord(name="locked", url=locked.url, sealed_token=SEALER.seal("locked", Secret("t")))
    record = await polled(discovery_of(client, source))
    assert len(names(record, "locked")) == 1
