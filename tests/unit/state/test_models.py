"""What requests see of the snapshot."""

from __future__ import annotations

from typing import Any

import pytest

from dataplane.errors import NotReadyError
from dataplane.state.models import CurrentModels
from dataplane.values import Grant
from shared.modelname import canonical
from shared.records import (
    BackendModelsRecord,
    BackendRecord,
    ConfigRecord,
    DiscoveredRecord,
    ModelPolicyRecord,
    ModelRecord,
)
from shared.redaction import Secret
from shared.sealing import Sealer
from tests.fakes.manual_clock import ManualClock

SEALER = Sealer(b"k" * 32)
EVERYTHING = Grant(all_models=True)
LLAMA, QWEN = canonical("llama3"), canonical("qwen3:4b")


def model(name: str, *, missed_polls: int = 0) -> ModelRecord:
    return ModelRecord(name=name, canonical=canonical(name), missed_polls=missed_polls)


def backend(name: str, *, sealed_token: str | None = None, **fields: Any) -> BackendRecord:
    return BackendRecord(name=name, url=f"http://{name}:11434", sealed_token=sealed_token, **fields)


def offers(name: str, *models: ModelRecord, seen_at_ms: int = 1) -> BackendModelsRecord:
    return BackendModelsRecord(backend=name, seen_at_ms=seen_at_ms, models=models)


def models_of(
    backends: tuple[BackendRecord, ...], *entries: BackendModelsRecord, clock: ManualClock | None = None
) -> CurrentModels:
    models = CurrentModels(sealer=SEALER, clock=clock or ManualClock())
    apply(models, backends, *entries)
    return models


def apply(models: CurrentModels, backends: tuple[BackendRecord, ...], *entries: BackendModelsRecord) -> None:
    models.replace(
        ConfigRecord(revision=1, backends=backends),
        DiscoveredRecord(revision=1, expires_at_ms=0, backends=entries),
        valid_for_s=60,
    )


def names(models: CurrentModels) -> list[str]:
    return [candidate.backend.name for candidate in models.candidates(LLAMA)]


def test_candidates_come_in_routing_order_with_their_own_spelling():
    models = models_of(
        (backend("two"), backend("one")), offers("one", model("llama3")), offers("two", model("LLAMA3:latest"))
    )
    found = [(candidate.backend.name, candidate.model.name) for candidate in models.candidates(LLAMA)]
    assert found == [("two", "LLAMA3:latest"), ("one", "llama3")]
    resolved = models.resolve(EVERYTHING, LLAMA)
    assert resolved is not None
    assert resolved.name == "LLAMA3:latest"


def test_listing_is_the_union_with_each_model_once():
    models = models_of(
        (backend("one"), backend("two")),
        offers("one", model("qwen3:4b"), model("llama3")),
        offers("two", model("llama3"), model("a/own:1")),
    )
    assert [listed.name for listed in models.listing(EVERYTHING)] == ["a/own:1", "llama3", "qwen3:4b"]


def test_grant_decides_what_is_seen():
    models = models_of((backend("one"),), offers("one", model("qwen3:4b"), model("llama3")))
    grant = Grant(all_models=False, models=frozenset({LLAMA, canonical("not-installed")}))
    assert [listed.name for listed in models.listing(grant)] == ["llama3"]
    assert models.resolve(grant, QWEN) is None
    assert models.resolve(grant, canonical("not-installed")) is None
    assert models.resolve(grant, LLAMA) is not None


def test_models_of_an_unconfigured_backend_do_not_exist():
    models = models_of((backend("one"),), offers("stranger", model("llama3")), offers("one"))
    assert models.candidates(LLAMA) == ()
    assert models.listing(EVERYTHING) == ()


@pytest.mark.parametrize(
    ("fields", "credential"),
    [
        ({}, ("Authorization", "Bearer hush")),
        ({"header": "X-Token", "scheme": ""}, ("X-Token", "hush")),
    ],
    ids=["default", "own header"],
)
def test_credential_is_opened_and_ready_to_send(fields: dict[str, str], credential: tuple[str, str]):
    sealed = SEALER.seal("one", Secret("hush"))
    models = models_of((backend("one", sealed_token=sealed, **fields),), offers("one", model("llama3")))
    opened = models.candidates(LLAMA)[0].backend
    assert opened.credential == credential
    assert "hush" not in repr(opened)


def test_backend_whose_credential_cannot_be_opened_is_left_out():
    moved = SEALER.seal("another", Secret("hush"))
    models = models_of(
        (backend("one", sealed_token=moved), backend("two")),
        offers("one", model("llama3")),
        offers("two", model("llama3")),
    )
    assert names(models) == ["two"]


def test_missing_model_is_left_out_of_that_backend_until_a_later_poll_finds_it():
    backends = (backend("one"), backend("two"))
    models = models_of(backends, offers("one", model("llama3")), offers("two", model("llama3")))
    models.forget("one", LLAMA)
    assert names(models) == ["two"]
    apply(models, backends, offers("one", model("llama3")), offers("two", model("llama3"), seen_at_ms=9))
    assert names(models) == ["two"]
    apply(models, backends, offers("one", model("llama3", missed_polls=1), seen_at_ms=2), offers("two"))
    assert names(models) == []
    apply(models, backends, offers("one", model("llama3"), seen_at_ms=3), offers("two"))
    assert names(models) == ["one"]


def test_model_that_is_missing_everywhere_is_not_listed():
    models = models_of((backend("one"),), offers("one", model("llama3"), model("qwen3:4b")))
    models.forget("one", LLAMA)
    assert [listed.name for listed in models.listing(EVERYTHING)] == ["qwen3:4b"]
    assert models.resolve(EVERYTHING, LLAMA) is None


def test_forgetting_what_is_not_there_changes_nothing():
    models = models_of((backend("one"),), offers("one", model("llama3")))
    models.forget("stranger", LLAMA)
    assert names(models) == ["one"]
    CurrentModels(sealer=SEALER, clock=ManualClock()).forget("one", LLAMA)


def test_nothing_resolves_without_a_snapshot_or_after_its_time():
    clock = ManualClock()
    empty = CurrentModels(sealer=SEALER, clock=clock)
    expired = models_of((backend("one"),), offers("one", model("llama3")), clock=clock)
    clock.now_s += 60
    for models in (empty, expired):
        with pytest.raises(NotReadyError):
            models.resolve(EVERYTHING, LLAMA)
        with pytest.raises(NotReadyError):
            models.candidates(LLAMA)
        with pytest.raises(NotReadyError):
            models.listing(EVERYTHING)


def with_alias(*names: str, alias: str = "fast") -> CurrentModels:
    models = CurrentModels(sealer=SEALER, clock=ManualClock())
    models.replace(
        ConfigRecord(
            revision=1,
            backends=(backend("one"),),
            models=(ModelPolicyRecord(model=LLAMA, num_ctx=512, alias=canonical(alias)),),
        ),
        DiscoveredRecord(revision=1, expires_at_ms=0, backends=(offers("one", *map(model, names)),)),
        valid_for_s=60,
    )
    return models


def test_an_alias_is_a_second_name_of_the_model():
    models = with_alias("LLAMA3", "qwen3:4b")
    assert [listed.name for listed in models.listing(EVERYTHING)] == ["fast:latest", "LLAMA3", "qwen3:4b"]
    resolved = models.resolve(EVERYTHING, canonical("fast"))
    assert resolved is not None
    assert (resolved.name, resolved.canonical) == ("fast:latest", LLAMA)
    policy = models.policy(LLAMA)
    assert policy is not None
    assert policy.num_ctx == 512
    assert models.policy(canonical("fast")) is None


@pytest.mark.parametrize("granted", ["llama3", "fast"])
def test_a_grant_of_either_name_holds_for_both(granted):
    models = with_alias("llama3", "qwen3:4b")
    grant = Grant(all_models=False, models=frozenset({canonical(granted)}))
    assert [listed.name for listed in models.listing(grant)] == ["fast:latest", "llama3"]
    assert all(models.resolve(grant, canonical(name)) is not None for name in ("llama3", "fast"))
    assert models.resolve(grant, QWEN) is None


def test_an_alias_grants_nothing_without_a_grant():
    models = with_alias("llama3", "qwen3:4b")
    grant = Grant(all_models=False, models=frozenset({QWEN}))
    assert [listed.name for listed in models.listing(grant)] == ["qwen3:4b"]
    assert models.resolve(grant, canonical("fast")) is None


def test_a_model_goes_before_an_alias_of_its_name():
    models = with_alias("llama3", "qwen3:4b", alias="qwen3:4b")
    resolved = models.resolve(EVERYTHING, QWEN)
    assert resolved is not None
    assert resolved.canonical == QWEN
    # Nor does a grant of the one open the other.
    grant = Grant(all_models=False, models=frozenset({QWEN}))
    assert [listed.canonical for listed in models.listing(grant)] == [QWEN]
    assert models.resolve(grant, LLAMA) is None


def test_the_alias_of_a_model_that_is_not_there_is_not_there():
    models = with_alias("qwen3:4b")
    assert [listed.name for listed in models.listing(EVERYTHING)] == ["qwen3:4b"]
    assert models.resolve(EVERYTHING, canonical("fast")) is None
