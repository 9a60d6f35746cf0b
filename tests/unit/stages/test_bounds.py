"""How many tokens a request can cost at most."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane import bounds
from dataplane.errors import LimitExceededError
from dataplane.values import Demand, InferenceRequest, Limits, Operation
from shared.modelname import canonical
from shared.records import ModelRecord
from tests.unit.stages.principals import INFERENCE

MODEL = ModelRecord(
    name="llama3",
    canonical=canonical("llama3"),
    capabilities=("completion",),
    context_length=8192,
    template_bytes=1000,
)


def request(**changed: object) -> InferenceRequest:
    return msgspec.structs.replace(INFERENCE, **{"prompt_bytes": 100, "num_predict": 50, **changed})


def model(**changed: object) -> ModelRecord:
    return msgspec.structs.replace(MODEL, **changed)


def test_a_prompt_is_at_most_its_bytes_the_template_and_a_constant_per_message():
    assert bounds.demand_of(request(messages=3), [MODEL]) == Demand(
        prompt_bound=100 + 1000 + 3 * 64, prompt_estimate=25, num_predict=50
    )


def test_a_prompt_is_never_longer_than_the_context():
    assert bounds.demand_of(request(prompt_bytes=100_000), [MODEL]).prompt_bound == 8192


def test_an_image_may_fill_the_context():
    assert bounds.demand_of(request(images=1), [MODEL]).prompt_bound == 8192
    unknown = model(context_length=0)
    assert bounds.demand_of(request(images=2), [unknown]).prompt_bound == 100 + 1000 + 64 + 2 * 8192


def test_a_template_that_nobody_told_is_taken_to_be_long():
    unknown = model(template_bytes=0, capabilities=(), context_length=0)
    assert bounds.demand_of(request(), [unknown]).prompt_bound == 100 + 64 + 16_384
    without = model(template_bytes=0, context_length=0)
    assert bounds.demand_of(request(), [without]).prompt_bound == 100 + 64


def test_of_several_backends_the_largest_bound_holds():
    small = model(template_bytes=10)
    assert bounds.demand_of(request(), [small, MODEL]).prompt_bound == 1164
    thinking = model(capabilities=("completion", "thinking"))
    assert bounds.demand_of(request(doubles_output=True), [MODEL]).output_factor == 1
    assert bounds.demand_of(request(doubles_output=True), [MODEL, thinking]).output_factor == 2


def test_each_text_of_an_embedding_is_a_prompt_of_its_own():
    many = request(operation=Operation.EMBED, messages=3, num_predict=0, prompt_bytes=30_000)
    assert bounds.demand_of(many, [MODEL]).prompt_bound == 3 * 8192
    few = request(operation=Operation.EMBED, messages=3, num_predict=0)
    assert bounds.demand_of(few, [MODEL]).prompt_bound == 100 + 3 * 64


@given(
    prompt=st.integers(0, 300),
    wanted=st.integers(0, 300),
    limits=st.lists(st.none() | st.integers(0, 300), min_size=1, max_size=3),
)
def test_lowered_output_is_what_a_minute_could_admit_or_the_prompt_is_refused(prompt, wanted, limits):
    demand = Demand(prompt_bound=1000, prompt_estimate=prompt, num_predict=wanted)
    scopes = [Limits(rpm=None, tpm=limit, concurrent=None) for limit in limits]
    room = min((limit - prompt for limit in limits if limit is not None), default=wanted)
    if room < min(wanted, bounds.LEAST_OUTPUT):
        with pytest.raises(LimitExceededError) as refusal:
            bounds.lowered_to_rates(demand, *scopes)
        assert refusal.value.exhausted
    else:
        assert bounds.lowered_to_rates(demand, *scopes).num_predict == min(wanted, room)


def test_the_context_of_a_policy_is_the_bound():
    assert bounds.demand_of(request(prompt_bytes=100_000, context_tokens=2048), [MODEL]).prompt_bound == 2048
    assert bounds.demand_of(request(images=1, context_tokens=2048), [MODEL]).prompt_bound == 2048
    embedding = request(operation=Operation.EMBED, messages=3, prompt_bytes=100_000, context_tokens=512)
    assert bounds.demand_of(embedding, [MODEL]).prompt_bound == 3 * 512


def test_an_image_costs_what_the_policy_says_within_the_context():
    assert bounds.demand_of(request(images=2, image_tokens=768), [MODEL]).prompt_bound == 100 + 1000 + 64 + 2 * 768
    assert bounds.demand_of(request(images=20, image_tokens=768), [MODEL]).prompt_bound == 8192
    unknown = model(context_length=0)
    assert bounds.demand_of(request(images=20, image_tokens=768), [unknown]).prompt_bound == 1164 + 20 * 768
