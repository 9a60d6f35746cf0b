"""New state arrives within a second, and bad state changes nothing."""

from __future__ import annotations

import pytest

from dataplane.errors import NotReadyError
from dataplane.quota.link import Link
from dataplane.state.models import CurrentModels
from dataplane.state.store import READINESS_CHECK, StateStore
from dataplane.state.watcher import RedisWatcher
from dataplane.values import Grant
from shared import keyspace
from shared.lifecycle import Readiness
from shared.modelname import canonical
from shared.records import BackendModelsRecord, BackendRecord, ConfigRecord, DiscoveredRecord, ModelRecord
from shared.sealing import Sealer
from tests.fakes.manual_clock import ManualClock
from tests.fakes.published_state import PublishedState
from tests.fakes.redis_link import running_link

pytestmark = pytest.mark.redis
EVERYTHING = Grant(all_models=True)


def config(revision: int = 1) -> ConfigRecord:
    return ConfigRecord(revision=revision, backends=(BackendRecord(name="one", url="http://one:11434"),))


def discovered(*names: str, revision: int = 1, problem: str = "") -> DiscoveredRecord:
    models = tuple(ModelRecord(name=name, canonical=canonical(name)) for name in names)
    entry = BackendModelsRecord(backend="one", seen_at_ms=revision, models=models, problem=problem)
    return DiscoveredRecord(revision=revision, expires_at_ms=0, backends=(entry,))


class Worker:
    def __init__(self, link: Link) -> None:
        self.clock = ManualClock()
        self.models = CurrentModels(sealer=Sealer(b"k" * 32), clock=self.clock)
        self.readiness = Readiness((READINESS_CHECK,))
        store = StateStore(models=self.models, readiness=self.readiness, clock=self.clock)
        self.watcher = RedisWatcher(link=link, store=store, models=self.models)

    async def names(self) -> list[str]:
        await self.watcher.look()
        return [model.name for model in self.models.listing(EVERYTHING)]


@pytest.fixture
def worker(link: Link) -> Worker:
    return Worker(link)


async def test_published_state_becomes_the_snapshot(worker: Worker, state: PublishedState):
    state.models(config(), discovered("llama3:8b"))
    assert await worker.names() == ["llama3:8b"]
    assert worker.readiness.failing == ()
    state.models(config(), discovered("llama3:8b", "qwen3:4b", revision=2))
    assert await worker.names() == ["llama3:8b", "qwen3:4b"]


async def test_models_expire_by_the_time_to_live_of_their_record(worker: Worker, state: PublishedState):
    state.models(config(), discovered("llama3:8b"), ttl_ms=30_000)
    assert await worker.names() == ["llama3:8b"]
    state.client.delete(keyspace.MODELS_DISCOVERED)
    worker.clock.now_s += 29
    assert await worker.names() == ["llama3:8b"]
    worker.clock.now_s += 2
    with pytest.raises(NotReadyError):
        await worker.names()
    assert worker.readiness.failing == ("models",)


async def test_same_state_seen_again_stays_valid_for_longer(worker: Worker, state: PublishedState):
    state.models(config(), discovered("llama3:8b"), ttl_ms=30_000)
    await worker.names()
    worker.clock.now_s += 29
    state.models(config(), discovered("llama3:8b"), ttl_ms=30_000)
    await worker.names()
    worker.clock.now_s += 29
    assert worker.models.is_valid


@pytest.mark.parametrize("key", [keyspace.CONFIG, keyspace.MODELS_DISCOVERED])
async def test_unreadable_state_leaves_the_last_good_one(worker: Worker, state: PublishedState, key: str):
    state.models(config(), discovered("llama3:8b"))
    await worker.names()
    state.models(config(2), discovered("qwen3:4b", revision=2))
    state.client.set(key, b'{"revision": "no"', keepttl=True)
    assert await worker.names() == ["llama3:8b"]


async def test_models_that_would_never_expire_are_not_believed(worker: Worker, state: PublishedState):
    state.models(config(), discovered("llama3:8b"))
    state.client.persist(keyspace.MODELS_DISCOVERED)
    with pytest.raises(NotReadyError):
        await worker.names()


async def test_backend_that_was_polled_well_may_have_no_models(worker: Worker, state: PublishedState):
    state.models(config(), discovered())
    assert await worker.names() == []
    assert worker.readiness.failing == ()


async def test_nothing_discovered_is_not_an_empty_set(worker: Worker, state: PublishedState):
    with pytest.raises(NotReadyError):
        await worker.names()
    state.models(config(), discovered(problem="it does not answer"))
    with pytest.raises(NotReadyError):
        await worker.names()


async def test_redis_that_is_away_leaves_the_last_good_state():
    async with running_link("redis://127.0.0.1:1/0", trusted=False) as link:
        worker = Worker(link)
        worker.models.replace(config(), discovered("llama3:8b"), valid_for_s=60)
        assert await worker.names() == ["llama3:8b"]
