"""Rules that hold for both dialects."""

import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataplane.api.dialect import Caps, Parsed
from dataplane.errors import ForbiddenError, RequestError
from dataplane.values import Dialect
from tests.unit.api.endpoints import CAPS, ENDPOINTS, LEAST, MESSAGES, parse

GENERATING = ("/api/chat", "/api/generate", "/v1/chat/completions", "/v1/completions")
PNG = "iVBORw0KGgo="


def native(parsed: Parsed) -> Any:
    return json.loads(msgspec.json.encode(parsed.request.body))


def with_limit(endpoint: str, value: Any) -> list[dict[str, Any]]:
    if endpoint.startswith("/api"):
        return [{"options": {"num_predict": value}}]
    return [{"max_tokens": value}, {"max_completion_tokens": value}, {"max_tokens": 7, "max_completion_tokens": value}]


ANY_JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(-5, 5000),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=5),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=3), inner, max_size=2)),
    max_leaves=4,
)


@settings(max_examples=300)
@given(ANY_JSON, st.sampled_from(GENERATING))
def test_any_output_limit_is_refused_or_becomes_an_integer_within_the_cap(value, endpoint):
    for fields in with_limit(endpoint, value):
        try:
            parsed = parse(endpoint, **fields)
        except RequestError:
            continue
        sent = native(parsed)["options"]["num_predict"]
        assert type(sent) is int
        assert 1 <= sent <= CAPS.max_num_predict
        assert parsed.request.num_predict == sent


@pytest.mark.parametrize("endpoint", GENERATING)
@pytest.mark.parametrize(
    ("value", "sent", "clamped"),
    [
        (1, 1, False),
        (4096, 4096, False),
        (4097, 4096, True),
        (2**63, 4096, True),
        (-1, 4096, False),
        (-2, 4096, False),
        (None, 4096, False),
    ],
)
def test_output_limits_are_kept_clamped_or_opened(endpoint, value, sent, clamped):
    for fields in with_limit(endpoint, value)[:2]:
        request = parse(endpoint, **fields).request
        assert (request.num_predict, request.clamped) == (sent, clamped)


@pytest.mark.parametrize("endpoint", GENERATING)
@pytest.mark.parametrize("value", [0, -3, 5.0, 4096.9, True, False, "10", [], {}, 10**30])
def test_output_limits_that_are_no_counts_are_refused(endpoint, value):
    for fields in with_limit(endpoint, value):
        with pytest.raises(RequestError):
            parse(endpoint, **fields)


def test_the_smaller_of_two_output_limits_holds():
    for older, newer in ((5, 9), (9, 5)):
        assert parse("/v1/chat/completions", max_tokens=older, max_completion_tokens=newer).request.num_predict == 5
    request = parse("/v1/chat/completions", max_tokens=5, max_completion_tokens=5000).request
    assert (request.num_predict, request.clamped) == (5, False)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(
    "model", ["llama3:cloud", "gpt-oss:120b-cloud", "llama3:local", "a/b/c/d", "llama 3", "lla\u0000ma", "é", "x" * 300]
)
def test_a_name_that_is_no_model_here_is_forbidden_like_any_other(endpoint, model):
    with pytest.raises(ForbiddenError) as refusal:
        parse(endpoint, model=model)
    assert refusal.value.reason == "model_not_allowed"


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("model", [None, "", 5, ["llama3"]])
def test_a_missing_model_is_a_fault_of_the_request(endpoint, model):
    with pytest.raises(RequestError):
        parse(endpoint, model=model)


@pytest.mark.parametrize(
    ("endpoint", "fault"),
    [
        ("/api/chat", {"top_logprobs": 21}),
        ("/api/chat", {"think": "much"}),
        ("/api/generate", {"format": "xml"}),
        ("/api/embed", {"dimensions": 0}),
        ("/v1/chat/completions", {"top_logprobs": 5}),
        ("/v1/completions", {"logprobs": 21}),
        ("/v1/embeddings", {"encoding_format": "hex"}),
    ],
)
def test_the_body_is_judged_before_the_model_whatever_the_model(endpoint, fault):
    for model in ("llama3", "llama3:cloud", "no model"):
        with pytest.raises(RequestError):
            parse(endpoint, model=model, **fault)


@pytest.mark.parametrize(
    "model", ["llama3", "LLAMA3:latest", "library/llama3", "https://registry.ollama.ai/library/llama3", " llama3 "]
)
def test_every_spelling_of_a_model_is_one_model_and_the_clients_is_kept(model):
    for endpoint in ENDPOINTS:
        request = parse(endpoint, model=model).request
        assert request.canonical == "registry.ollama.ai/library/llama3:latest"
        assert request.model == model
        assert request.body.model == ""


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_streaming_defaults_are_those_of_the_dialect(endpoint):
    generating = endpoint in GENERATING
    default = generating and ENDPOINTS[endpoint].dialect is Dialect.OLLAMA
    assert parse(endpoint).request.stream is default
    assert parse(endpoint, stream=None).request.stream is default
    assert parse(endpoint, stream=True).request.stream is generating
    assert parse(endpoint, stream=False).request.stream is False
    if generating:
        with pytest.raises(RequestError):
            parse(endpoint, stream="true")


@pytest.mark.parametrize(
    ("endpoint", "emptied"),
    [
        ("/api/chat", {"messages": []}),
        ("/api/chat", {"messages": None}),
        ("/api/generate", {"prompt": ""}),
        ("/api/generate", {"prompt": None, "images": [PNG]}),
        ("/api/embed", {"input": ""}),
        ("/api/embed", {"input": []}),
        ("/api/embed", {"input": ["a", ""]}),
        ("/api/embeddings", {"prompt": ""}),
        ("/v1/chat/completions", {"messages": []}),
        ("/v1/completions", {"prompt": ""}),
        ("/v1/completions", {"prompt": []}),
        ("/v1/completions", {"prompt": ["a", "b"]}),
        ("/v1/completions", {"prompt": [1, 2]}),
        ("/v1/embeddings", {"input": []}),
        ("/v1/embeddings", {"input": [1, 2, 3]}),
        ("/v1/embeddings", {"input": [[1, 2]]}),
    ],
)
def test_nothing_to_answer_is_refused_because_ollama_would_load_or_unload(endpoint, emptied):
    with pytest.raises(RequestError):
        parse(endpoint, **emptied)


NARROW = Caps(
    max_num_predict=16,
    max_messages=2,
    max_images=1,
    max_inputs=2,
    max_stops=2,
    max_stop_bytes=4,
    max_schema_depth=3,
    max_schema_bytes=64,
    max_tools=1,
    max_tool_calls=1,
    max_top_logprobs=2,
    max_dimensions=8,
)
TOOL = {"type": "function", "function": {"name": "f"}}
DEEP: dict[str, Any] = {"a": {"b": {"c": {}}}}
CALL = {"id": "c", "function": {"name": "f", "arguments": {}}}
OPENAI_CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
URL = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}


@pytest.mark.parametrize(
    ("endpoint", "excess"),
    [
        ("/api/chat", {"messages": MESSAGES * 3}),
        ("/api/chat", {"messages": [{"role": "user", "content": "x", "images": [PNG, PNG]}]}),
        ("/api/chat", {"messages": [{"role": "assistant", "tool_calls": [CALL, CALL]}]}),
        ("/api/chat", {"tools": [TOOL, TOOL]}),
        ("/api/chat", {"options": {"stop": ["a", "b", "c"]}}),
        ("/api/chat", {"options": {"stop": ["abcde"]}}),
        ("/api/chat", {"options": {"repeat_last_n": 2**31}}),
        ("/api/chat", {"options": {"temperature": 1e39}}),
        ("/api/chat", {"format": DEEP}),
        ("/api/chat", {"format": {"const": "x" * 64}}),
        ("/api/chat", {"format": {"$ref": "https://example.org/schema"}}),
        ("/api/chat", {"format": []}),
        ("/api/chat", {"top_logprobs": 3}),
        ("/api/generate", {"images": [PNG, PNG]}),
        ("/api/embed", {"input": ["a", "b", "c"]}),
        ("/api/embed", {"dimensions": 9}),
        ("/v1/chat/completions", {"messages": MESSAGES * 3}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": [URL, URL]}]}),
        ("/v1/chat/completions", {"messages": [{"role": "assistant", "tool_calls": [OPENAI_CALL] * 2}]}),
        ("/v1/chat/completions", {"tools": [TOOL, TOOL]}),
        ("/v1/chat/completions", {"stop": ["a", "b", "c"]}),
        ("/v1/chat/completions", {"response_format": {"type": "json_schema", "json_schema": {"schema": DEEP}}}),
        ("/v1/chat/completions", {"logprobs": True, "top_logprobs": 3}),
        ("/v1/completions", {"logprobs": 3}),
        ("/v1/embeddings", {"input": ["a", "b", "c"]}),
        ("/v1/embeddings", {"dimensions": 9}),
    ],
)
def test_each_cap_is_a_refusal_that_names_the_field(endpoint, excess):
    with pytest.raises(RequestError) as refusal:
        parse(endpoint, NARROW, **excess)
    assert refusal.value.param is not None
    assert refusal.value.param.split(".")[0].split("[")[0] in excess


@pytest.mark.parametrize("image", ["", "no base64!", "iVBORw0KGgo", "\u00e9" * 4, "data:image/png;base64,iVBORw0KGgo="])
def test_an_image_that_is_not_base64_is_refused(image):
    with pytest.raises(RequestError):
        parse("/api/generate", images=[image])


BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


@given(st.text("A/+=_", min_size=1, max_size=12))
@example("iGgo=")
@example("iGgo====")
@example("QQ==QQ==")
def test_an_image_is_accepted_exactly_if_go_decodes_it(text):
    try:
        sent = native(parse("/api/generate", images=[text]))["images"]
    except RequestError:
        assert BASE64.fullmatch(text) is None
    else:
        assert sent == [text]
        assert BASE64.fullmatch(text) is not None


def test_an_image_with_line_breaks_is_sent_without():
    assert native(parse("/api/generate", images=["iVBORw0K\r\nGgo="]))["images"] == [PNG]


def test_a_property_that_is_called_ref_is_no_reference():
    schema = {"type": "object", "properties": {"$ref": {"type": "string"}}, "$defs": {"a": {"$ref": "#/$defs/a"}}}
    assert native(parse("/api/chat", format=schema))["format"] == schema


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_model_is_all_that_the_least_body_needs_beside_its_prompt(endpoint):
    request = parse(endpoint).request
    assert request.prompt_bytes >= 2
    assert request.ignored == ()
    assert request.unknown_fields == 0
    for field in LEAST[endpoint]:
        body = {name: value for name, value in LEAST[endpoint].items() if name != field}
        with pytest.raises(RequestError):
            ENDPOINTS[endpoint].parse(json.dumps(body).encode(), CAPS)


def test_prompt_bytes_cover_everything_that_is_rendered():
    texts = {"content": "né", "thinking": "hm"}
    plain = parse("/api/chat", messages=[{"role": "user", "content": "x"}]).request.prompt_bytes
    assert plain == len("user") + 1
    request = parse("/api/chat", messages=[{"role": "assistant", **texts}]).request
    assert request.prompt_bytes == len("assistant") + 3 + 2
    called = [{"function": {"name": "f", "arguments": {"a": "<&>\u2028"}}}]
    request = parse("/api/chat", messages=[{"role": "assistant", "tool_calls": called}]).request
    assert request.prompt_bytes >= len("assistant") + len(r'f{"a":"\u003c\u0026\u003e\u2028"}')
    assert parse("/api/generate", prompt="né", system="s", suffix="t").request.prompt_bytes == 5
    assert parse("/api/embed", input=["né", "x"]).request.prompt_bytes == 4
    tool = {"type": "function", "function": {"name": "f", "description": "<" * 100}}
    for endpoint in ("/api/chat", "/v1/chat/completions"):
        assert parse(endpoint, tools=[tool]).request.prompt_bytes > 600


@pytest.mark.parametrize(
    ("endpoint", "fields", "doubled"),
    [
        ("/api/chat", {"format": "json"}, True),
        ("/api/chat", {"format": "json", "think": False}, False),
        ("/api/chat", {"format": "", "think": True}, False),
        ("/api/generate", {"format": {"type": "object"}, "think": "high"}, True),
        ("/v1/chat/completions", {"response_format": {"type": "json_object"}}, True),
        ("/v1/chat/completions", {"response_format": {"type": "json_object"}, "reasoning_effort": "none"}, False),
        ("/v1/chat/completions", {"response_format": {"type": "text"}}, False),
    ],
)
def test_a_format_may_double_the_output_unless_thinking_is_off(endpoint, fields, doubled):
    assert parse(endpoint, **fields).request.doubles_output is doubled
