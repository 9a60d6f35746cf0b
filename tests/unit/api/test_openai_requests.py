from typing import Any

import pytest

from dataplane.errors import RequestError
from tests.unit.api.endpoints import MESSAGES, parse
from tests.unit.api.test_requests import PNG, native

CHAT = "/v1/chat/completions"
DEFAULTS = {"num_predict": 4096, "temperature": 1.0, "top_p": 1.0}


def test_a_conversation_with_tools_becomes_a_native_one():
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city": "Z\\u00fcrich"}'},
    }
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "name": "bob", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None, "refusal": None, "tool_calls": [call], "reasoning": "hm"},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "rain"}]},
        {"role": "tool", "tool_call_id": "call_9", "content": "?"},
    ]
    assert native(parse(CHAT, messages=messages))["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "a\nb"},
        {
            "role": "assistant",
            "content": "",
            "thinking": "hm",
            "tool_calls": [{"id": "call_1", "function": {"name": "weather", "arguments": {"city": "Zürich"}}}],
        },
        {"role": "tool", "content": "rain", "tool_name": "weather", "tool_call_id": "call_1"},
        {"role": "tool", "content": "?", "tool_call_id": "call_9"},
    ]


@pytest.mark.parametrize("kind", ["png", "jpeg", "jpg", "webp", "PNG"])
def test_images_are_taken_from_data_uris(kind):
    for image_url in ({"url": f"data:image/{kind};base64,{PNG}", "detail": "low"}, f"data:image/{kind};base64,{PNG}"):
        content = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": image_url}]
        parsed = parse(CHAT, messages=[{"role": "user", "content": content}])
        assert native(parsed)["messages"] == [{"role": "user", "content": "see", "images": [PNG]}]
        assert parsed.request.images == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/x.png",
        "https://example.org/x.png",
        "file:///etc/passwd",
        f"data:image/gif;base64,{PNG}",
        f"data:image/svg+xml;base64,{PNG}",
        "data:image/png;base64,",
        "data:image/png;base64,%%%",
        f"data:image/png,{PNG}",
        "",
        None,
    ],
)
def test_no_other_url_is_accepted_and_none_is_ever_fetched(url):
    content = [{"type": "image_url", "image_url": {"url": url}}]
    with pytest.raises(RequestError):
        parse(CHAT, messages=[{"role": "user", "content": content}])


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"options": DEFAULTS}),
        ({"temperature": 0, "top_p": 0.5}, {"options": {**DEFAULTS, "temperature": 0.0, "top_p": 0.5}}),
        ({"seed": 3, "stop": "x"}, {"options": {**DEFAULTS, "seed": 3, "stop": ["x"]}}),
        ({"stop": ["x", "y"]}, {"options": {**DEFAULTS, "stop": ["x", "y"]}}),
        (
            {"frequency_penalty": 1, "presence_penalty": -1},
            {"options": {**DEFAULTS, "frequency_penalty": 1.0, "presence_penalty": -1.0}},
        ),
        ({"response_format": {"type": "json_object"}}, {"format": "json"}),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "strict": True, "schema": {"type": "object"}},
                }
            },
            {"format": {"type": "object"}},
        ),
        ({"reasoning_effort": "none"}, {"think": False}),
        ({"reasoning_effort": "minimal"}, {"think": "low"}),
        ({"reasoning_effort": "medium"}, {"think": "medium"}),
        ({"reasoning": {"effort": "high", "summary": "auto"}}, {"think": "high"}),
        ({"reasoning_effort": "xhigh"}, {"think": "max"}),
        ({"logprobs": True, "top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}),
        ({"logprobs": False, "top_logprobs": 0}, {"top_logprobs": 0}),
    ],
)
def test_settings_become_native_ones(fields, expected):
    sent = native(parse(CHAT, **fields))
    sent.pop("messages")
    assert sent == {"options": DEFAULTS, **expected}


def test_tool_choice_none_drops_the_tools_and_others_are_named():
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}}]
    assert native(parse(CHAT, tools=tools))["tools"] == [
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    ]
    none = parse(CHAT, tools=tools, tool_choice="none")
    assert "tools" not in native(none)
    assert none.request.prompt_bytes == parse(CHAT).request.prompt_bytes
    for choice in ("required", {"type": "function", "function": {"name": "f"}}):
        parsed = parse(CHAT, tools=tools, tool_choice=choice)
        assert "tools" in native(parsed)
        assert "tool_choice" in parsed.request.ignored
    assert "tool_choice" not in parse(CHAT, tools=tools, tool_choice="auto").request.ignored


def test_what_ollama_drops_silently_is_named():
    ignored: dict[str, Any] = {
        "n": 2,
        "user": "u",
        "logit_bias": {"5": 1},
        "parallel_tool_calls": False,
        "metadata": {"A": "b"},
    }
    extra: dict[str, Any] = {"keep_alive": -1, "num_ctx": 9, "options": {"num_ctx": 9}, "store": True, "nonsense": 1}
    request = parse(CHAT, **ignored, **extra).request
    assert request.ignored == (
        "keep_alive", "logit_bias", "metadata", "n", "num_ctx", "options", "parallel_tool_calls", "store", "user",
    )  # fmt: skip
    assert request.unknown_fields == 1


@pytest.mark.parametrize(
    "fault",
    [
        {"messages": [{"role": "user", "content": None}]},
        {"messages": [{"role": "function", "content": "x"}]},
        {"messages": [{"role": "robot", "content": "x"}]},
        {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "file"}]}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[]"}}]}]},
        {
            "messages": [
                {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": '{"a":1,"a":2}'}}]}
            ]
        },
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}]},
        {"tools": [{"type": "web_search_preview"}]},
        {"response_format": {"type": "grammar"}},
        {"response_format": {"type": "json_schema"}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": None}}},
        {"reasoning_effort": "extreme"},
        {"top_logprobs": 3},
        {"stop": 5},
        {"stream_options": []},
        {"temperature": "hot"},
    ],
)
def test_a_completion_that_breaks_a_rule_is_refused(fault):
    with pytest.raises(RequestError) as refusal:
        parse(CHAT, **fault)
    assert refusal.value.param


def test_empty_arguments_are_no_arguments():
    messages = [
        *MESSAGES,
        {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": ""}}]},
    ]
    assert native(parse(CHAT, messages=messages))["messages"][1]["tool_calls"][0]["function"]["arguments"] == {}


def test_a_legacy_completion_is_a_generation_with_the_models_template():
    parsed = parse("/v1/completions", prompt=["once"], suffix="end", logprobs=2, echo=True, best_of=3, max_tokens=5)
    assert native(parsed) == {
        "prompt": "once",
        "suffix": "end",
        "options": {**DEFAULTS, "num_predict": 5},
        "logprobs": True,
        "top_logprobs": 2,
    }
    assert parsed.request.ignored == ("best_of", "echo")


def test_embeddings_take_one_text_or_many():
    assert native(parse("/v1/embeddings", input="a")) == {"input": ["a"]}
    parsed = parse("/v1/embeddings", input=["a", "b"], dimensions=4, encoding_format="base64", user="u")
    assert native(parsed) == {"input": ["a", "b"], "dimensions": 4}
    assert parsed.request.ignored == ("user",)
