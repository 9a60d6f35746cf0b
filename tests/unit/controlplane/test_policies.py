"""The rules of model policies."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.core import policies
from controlplane.core.policies import PolicyChange
from controlplane.errors import AlreadyExistsError, InvalidRequestError, StateConflictError
from shared.modelname import canonical
from shared.records import ModelPolicyRecord

QWEN, LLAMA, FAST = canonical("qwen3:8b"), canonical("llama3.2"), canonical("fast")
SET = ModelPolicyRecord(model=QWEN, num_ctx=8192, alias=FAST)


def changed(*known: ModelPolicyRecord, model=QWEN, discovered=frozenset(), **fields: Any) -> ModelPolicyRecord:
    return policies.changed(model, PolicyChange(**fields), known=known, discovered=discovered)


def test_what_is_given_is_set_and_the_rest_stays():
    policy = changed(SET, keep_alive="1h30m", max_num_predict=100, clear=("num_ctx",))
    assert policy == ModelPolicyRecord(model=QWEN, keep_alive="1h30m", max_num_predict=100, alias=FAST)
    assert policies.is_empty(changed(SET, clear=("num_ctx", "alias")))


@pytest.mark.parametrize(
    ("text", "value"), [("30m", "30m"), ("90s", "90s"), ("0", "0s"), ("-1", "-1s"), ("-1s", "-1s"), ("8760h", "8760h")]
)
def test_durations_are_kept_as_go_reads_them(text, value):
    assert changed(keep_alive=text).keep_alive == value


@pytest.mark.parametrize("text", ["", "5", "-2", "1d", "30m1h", "1.5h", "8760h1s", "٣m", "5m ", "m"])
def test_what_go_would_not_read_is_refused(text):
    with pytest.raises(InvalidRequestError, match="keep_alive must be a duration"):
        changed(keep_alive=text)


def test_every_fault_is_named_at_once():
    with pytest.raises(InvalidRequestError) as caught:
        changed(
            num_ctx=1,
            keep_alive="x",
            max_num_predict=0,
            image_tokens=-1,
            allowed_options=("temperature", "num_gpu"),
            alias="a b",
            clear=("alias", "rpm"),
        )
    for start in (
        "num_ctx must be from 256 to",
        "keep_alive must be",
        "max_num_predict must be from 1 to",
        "image_tokens must be from 1 to",
        "allowed_options: 'num_gpu' must be one of",
        "alias must be a model name",
        "clear: alias must not be set in the same request",
        "clear: 'rpm' must be one of",
    ):
        assert any(fault.startswith(start) for fault in caught.value.faults), start


def test_a_change_must_change_something():
    with pytest.raises(InvalidRequestError, match="at least one of"):
        changed(SET)


def test_allowed_options_are_kept_once_in_the_order_of_the_list():
    assert changed(allowed_options=("stop", "seed", "stop")).allowed_options == ("seed", "stop")
    assert changed(allowed_options=()).allowed_options == ()


@pytest.mark.parametrize(
    ("known", "discovered", "alias", "error"),
    [
        ((), {FAST}, "FAST:latest", AlreadyExistsError),
        ((ModelPolicyRecord(model=FAST, num_ctx=512),), set(), "fast", AlreadyExistsError),
        ((ModelPolicyRecord(model=LLAMA, alias=FAST),), set(), "library/fast", AlreadyExistsError),
        ((), set(), "QWEN3:8b", InvalidRequestError),
        ((), set(), "fast:cloud", InvalidRequestError),
    ],
    ids=["a model", "a model with a policy", "another alias", "its own name", "a remote name"],
)
def test_an_alias_must_be_free(known, discovered, alias, error):
    with pytest.raises(error, match="alias"):
        changed(*known, discovered=frozenset(discovered), alias=alias)


def test_an_alias_that_is_kept_does_not_block_other_changes():
    # A backend has got a model of this name since.
    assert changed(SET, discovered=frozenset({FAST}), num_ctx=4096).alias == FAST
    assert policies.problem_of(SET, frozenset({FAST})) == policies.ALIAS_HIDDEN
    assert policies.problem_of(SET, frozenset({QWEN})) == ""
    assert policies.problem_of(ModelPolicyRecord(model=QWEN), frozenset({QWEN})) == ""


def test_there_are_no_chains():
    with pytest.raises(StateConflictError, match="fast:latest is an alias of qwen3:8b"):
        changed(SET, model=FAST, num_ctx=512)


def test_there_is_an_end_to_policies():
    many = [ModelPolicyRecord(model=canonical(f"m{n}"), num_ctx=512) for n in range(policies.MAX_POLICIES)]
    with pytest.raises(StateConflictError, match="1000 policies"):
        changed(*many, num_ctx=512)
    assert changed(*many, model=canonical("m0"), num_ctx=1024).num_ctx == 1024


@pytest.mark.parametrize("name", ["", "a b", "qwen3:cloud"])
def test_a_policy_is_of_a_local_model(name):
    with pytest.raises(InvalidRequestError, match="model must be"):
        policies.parse_model(name)
