"""Revisions only grow, whichever source they come from."""

from __future__ import annotations

import pytest

from dataplane.errors import NotReadyError
from dataplane.state.models import CurrentModels
from dataplane.state.store import READINESS_CHECK, StateRejectedError, StateStore
from dataplane.values import Grant
from shared import records
from shared.lifecycle import Readiness
from shared.modelname import canonical
from shared.records import BackendModelsRecord, BackendRecord, ConfigRecord, DiscoveredRecord, ModelRecord
from shared.sealing import Sealer
from tests.fakes.manual_clock import ManualClock

EVERYTHING = Grant(all_models=True)
LLAMA = canonical("llama3")


def config(revision: int, *backends: str) -> bytes:
    made = tuple(BackendRecord(name=name, url=f"http://{name}:11434") for name in backends or ("one",))
    return records.encode(ConfigRecord(revision=revision, backends=made))


def discovered(revision: int, *names: str, backends: tuple[str, ...] = ("one",), problem: str = "") -> bytes:
    models = tuple(ModelRecord(name=name, canonical=canonical(name)) for name in names)
    entries = tuple(
        BackendModelsRecord(backend=backend, seen_at_ms=revision, models=models, problem=problem)
        for backend in backends
    )
    return records.encode(DiscoveredRecord(revision=revision, expires_at_ms=0, backends=entries))


class World:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.models = CurrentModels(sealer=Sealer(b"k" * 32), clock=self.clock)
        self.readiness = Readiness((READINESS_CHECK,))
        self.store = StateStore(models=self.models, readiness=self.readiness, clock=self.clock)

    @property
    def names(self) -> list[str]:
        return [model.name for model in self.models.listing(EVERYTHING)]

    @property
    def backends(self) -> list[str]:
        return [candidate.backend.name for candidate in self.models.candidates(LLAMA)]


@pytest.fixture
def world() -> World:
    world = World()
    world.store.take(config=config(5), discovered=discovered(5, "llama3"), valid_for_s=60)
    return world


def test_state_makes_the_worker_ready(world: World):
    assert world.names == ["llama3"]
    assert world.readiness.ready


def test_newer_discovery_replaces_the_older_one(world: World):
    assert world.store.take(discovered=discovered(6, "qwen3:4b"), valid_for_s=60)
    assert world.names == ["qwen3:4b"]


@pytest.mark.parametrize("revision", [3, 5])
def test_state_that_is_not_newer_changes_nothing(world: World, revision: int):
    world.store.take(config=config(revision, "two"), discovered=discovered(revision, "qwen3:4b"), valid_for_s=60)
    assert (world.names, world.backends) == (["llama3"], ["one"])


def test_backends_alone_change_while_the_models_keep_their_time(world: World):
    world.store.take(discovered=discovered(6, "llama3", backends=("one", "two")), valid_for_s=30)
    world.clock.now_s += 20
    world.store.take(config=config(6, "two", "one"))
    assert world.backends == ["two", "one"]
    world.clock.now_s += 9
    assert world.models.is_valid
    world.clock.now_s += 1
    assert not world.models.is_valid


def test_same_revision_seen_again_is_valid_for_longer(world: World):
    world.clock.now_s += 50
    world.store.take(discovered=discovered(5, "llama3"), valid_for_s=60)
    world.clock.now_s += 50
    assert world.models.is_valid


def test_older_discovery_does_not_prolong_the_newer_one(world: World):
    world.store.take(discovered=discovered(4, "llama3"), valid_for_s=600)
    world.clock.now_s += 61
    world.store.report()
    assert not world.readiness.ready


@pytest.mark.parametrize("field", ["config", "discovered"])
def test_unreadable_half_rejects_the_whole(world: World, field: str):
    state = {"config": config(6, "two"), "discovered": discovered(6, "qwen3:4b")} | {field: b'{"revision": "no"'}
    with pytest.raises(StateRejectedError, match="unreadable"):
        world.store.take(**state, valid_for_s=60)
    assert (world.names, world.backends) == (["llama3"], ["one"])


def test_discovery_that_has_learnt_nothing_leaves_the_models(world: World):
    assert not world.store.take(config=config(6), discovered=discovered(6, problem="no answer"), valid_for_s=60)
    assert world.names == ["llama3"]


def test_halves_may_come_one_after_the_other():
    world = World()
    world.store.take(discovered=discovered(1, "llama3"), valid_for_s=60)
    with pytest.raises(NotReadyError):
        world.models.listing(EVERYTHING)
    assert not world.readiness.ready
    world.store.take(config=config(1))
    assert world.names == ["llama3"]
