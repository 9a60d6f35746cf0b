"""What a model's policy makes of a request."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane import policy
from dataplane.api.dialect import Caps
from dataplane.api.ollama import requests as ollama
from dataplane.api.openai import requests as openai
from dataplane.native import UNSET, ChatBody, EmbedBody, GenerateBody, Options
from dataplane.values import InferenceRequest
from shared import clientoptions
from shared.modelname import canonical
from shared.records import ModelPolicyRecord

CAPS = Caps(max_num_predict=4096)
PNG = "iVBORw0KGgo="
SCHEMA = {"type": "object"}
TOOL = {"type": "function", "function": {"name": "f"}}
# A client that sets everything that it may.
SAMPLING: dict[str, Any] = {
    **dict.fromkeys(clientoptions.SAMPLING, 1),
    "stop": ["END"],
}
CHAT = {
    "model": "fast",
    "messages": [{"role": "user", "content": "hi", "images": [PNG]}, {"role": "user", "content": "and?"}],
    "options": {**SAMPLING, "num_predict": 100},
    "format": SCHEMA,
    "tools": [TOOL],
    "think": False,
    "logprobs": True,
    "top_logprobs": 2,
}
GENERATE = {"model": "fast", "prompt": "hi", "suffix": "!", "images": [PNG], "format": "json", "options": SAMPLING}
EMBED = {"model": "fast", "input": ["a", "b"], "truncate": True, "dimensions": 8}


def asked(parse: Any, body: dict[str, Any]) -> InferenceRequest:
    request: InferenceRequest = parse(msgspec.json.encode(body), CAPS).request
    return request


def policy_of(**fields: Any) -> ModelPolicyRecord:
    return ModelPolicyRecord(model=canonical("qwen3:8b"), **fields)


def test_a_policy_that_decides_nothing_changes_only_the_name():
    request = asked(ollama.chat, CHAT)
    assert policy.applied(request, policy_of()) == msgspec.structs.replace(request, canonical=canonical("qwen3:8b"))
    assert policy.applied(request, policy_of()).model == "fast"


@pytest.mark.parametrize(
    ("parse", "body"),
    [(ollama.chat, CHAT), (ollama.generate, GENERATE), (ollama.embed, EMBED)],
    ids=["chat", "generate", "embed"],
)
def test_runner_options_are_written_into_every_body(parse, body):
    applied = policy.applied(asked(parse, body), policy_of(num_ctx=8192, keep_alive="30m"))
    assert applied.context_tokens == 8192
    assert isinstance(applied.body.options, Options)
    assert (applied.body.options.num_ctx, applied.body.keep_alive) == (8192, "30m")
    assert applied.ignored == ()


@pytest.mark.parametrize(("wanted", "granted", "clamped"), [(100, 64, True), (64, 64, False), (10, 10, False)])
def test_the_cap_lowers_the_output_and_never_raises_it(wanted, granted, clamped):
    request = asked(ollama.chat, {**CHAT, "options": {"num_predict": wanted}})
    applied = policy.applied(request, policy_of(max_num_predict=64))
    assert isinstance(applied.body, ChatBody)
    assert (applied.num_predict, applied.body.options.num_predict, applied.clamped) == (granted, granted, clamped)


def test_without_a_wish_the_output_is_the_cap_and_said_so():
    applied = policy.applied(asked(ollama.chat, {**CHAT, "options": {}}), policy_of(max_num_predict=64))
    assert (applied.num_predict, applied.clamped) == (64, True)


def test_embeddings_have_no_output_to_lower():
    applied = policy.applied(asked(ollama.embed, EMBED), policy_of(max_num_predict=1))
    assert (applied.num_predict, applied.clamped, applied.body.options) == (0, False, UNSET)


def test_what_is_not_allowed_is_dropped_and_named():
    applied = policy.applied(asked(ollama.chat, CHAT), policy_of(allowed_options=("temperature", "stop")))
    body = applied.body
    assert isinstance(body, ChatBody)
    assert msgspec.to_builtins(body.options) == {"temperature": 1.0, "stop": ["END"], "num_predict": 100}
    assert (body.format, body.tools, body.think, body.logprobs, body.top_logprobs) == (UNSET,) * 5
    assert [message.images for message in body.messages] == [UNSET, UNSET]
    assert [message.content for message in body.messages] == ["hi", "and?"]
    assert (applied.images, applied.doubles_output) == (0, False)
    named = [name for name in clientoptions.SAMPLING if name not in ("temperature", "stop")]
    assert applied.ignored == (*named, "format", "tools", "think", "images", "logprobs", "top_logprobs")


def test_without_its_think_false_a_format_may_cost_the_output_twice():
    request = asked(ollama.chat, CHAT)
    allowed = tuple(name for name in clientoptions.ALL if name != "think")
    assert not request.doubles_output
    assert policy.applied(request, policy_of(allowed_options=allowed)).doubles_output


def test_fields_of_other_bodies_are_dropped_too():
    generate = policy.applied(asked(ollama.generate, GENERATE), policy_of(allowed_options=())).body
    assert isinstance(generate, GenerateBody)
    assert (generate.suffix, generate.images, generate.format) == (UNSET, UNSET, UNSET)
    embed = policy.applied(asked(ollama.embed, EMBED), policy_of(allowed_options=()))
    assert isinstance(embed.body, EmbedBody)
    assert (embed.body.truncate, embed.body.dimensions) == (UNSET, UNSET)
    assert embed.ignored == ("truncate", "dimensions")


def test_what_a_dialect_assumes_is_dropped_without_a_word():
    body = {"model": "fast", "messages": [{"role": "user", "content": "hi"}], "temperature": 0.5}
    applied = policy.applied(asked(openai.chat, body), policy_of(allowed_options=()))
    assert msgspec.to_builtins(applied.body.options) == {"num_predict": 4096}
    assert applied.ignored == ("temperature",)
    silent = policy.applied(asked(openai.completions, {"model": "fast", "prompt": "hi"}), policy_of(allowed_options=()))
    assert silent.ignored == ()


def test_the_list_is_what_the_bodies_have():
    assert set(clientoptions.SAMPLING) == set(Options.__struct_fields__) - {"num_predict", "num_ctx"}
    bodies = {name for body in (ChatBody, GenerateBody, EmbedBody) for name in body.__struct_fields__}
    decided = {"model", "messages", "prompt", "system", "input", "stream", "options", "keep_alive"}
    assert set(clientoptions.FIELDS) == bodies - decided


@given(st.none() | st.lists(st.sampled_from(clientoptions.ALL), unique=True).map(tuple))
def test_nothing_goes_upstream_that_is_not_allowed_and_nothing_else_is_lost(allowed):
    request = asked(ollama.generate, GENERATE)
    applied = policy.applied(request, policy_of(allowed_options=allowed))
    before, after = (msgspec.json.decode(msgspec.json.encode(each.body)) for each in (request, applied))
    sent = after.pop("options").keys() | after.keys()
    given_up = (before.pop("options").keys() | before.keys()) - sent
    assert sent & set(clientoptions.ALL) <= set(clientoptions.ALL if allowed is None else allowed)
    assert given_up == set(applied.ignored)
    assert allowed is None or not given_up & set(allowed)
