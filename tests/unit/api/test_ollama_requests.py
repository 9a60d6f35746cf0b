from typing import Any

import pytest

from dataplane.errors import RequestError
from tests.unit.api.endpoints import parse
from tests.unit.api.test_requests import PNG, native


def test_a_chat_is_rebuilt_from_what_is_known():
    options = {"temperature": 0, "seed": 7, "top_k": 40, "stop": ["a"], "num_predict": 9, "num_gpu": 3, "num_keep": -1}
    schema = {"type": "object", "properties": {"B": {}, "b": {}}}
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"x": [1, 2.5, None]}, "index": 0}}
    messages = [
        {"role": "System", "content": "s"},
        {"role": "user", "content": "look", "images": [PNG]},
        {"role": "assistant", "content": None, "thinking": "hm", "tool_calls": [call]},
        {"role": "tool", "content": "42", "tool_name": "f", "tool_call_id": "c1"},
        {"role": "document 1", "content": "d"},
    ]
    tools = [{"type": "function", "function": {"name": "f", "description": "d", "parameters": schema, "strict": True}}]
    parsed = parse(
        "/api/chat",
        messages=messages,
        options=options,
        tools=tools,
        format=schema,
        think="high",
        logprobs=True,
        top_logprobs=3,
        keep_alive="24h",
        shift=False,
        truncate=False,
        _debug_render_only=True,
    )
    assert native(parsed) == {
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "look", "images": [PNG]},
            {
                "role": "assistant",
                "content": "",
                "thinking": "hm",
                "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": {"x": [1, 2.5, None]}, "index": 0}}],
            },
            {"role": "tool", "content": "42", "tool_name": "f", "tool_call_id": "c1"},
            {"role": "document 1", "content": "d"},
        ],
        "options": {"temperature": 0.0, "seed": 7, "top_k": 40, "stop": ["a"], "num_predict": 9, "num_keep": -1},
        "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": schema}}],
        "format": schema,
        "think": "high",
        "logprobs": True,
        "top_logprobs": 3,
    }
    request = parsed.request
    assert request.ignored == ("_debug_render_only", "keep_alive", "num_gpu", "shift", "strict", "truncate")
    assert (request.messages, request.images) == (5, 1)


def test_a_generation_keeps_system_and_suffix_and_drops_what_bypasses_the_template():
    parsed = parse(
        "/api/generate",
        system="s",
        suffix="t",
        raw=True,
        template="{{.}}",
        context=[1],
        images=[PNG],
        format="json",
        think=False,
    )
    assert native(parsed) == {
        "prompt": "hi",
        "options": {"num_predict": 4096},
        "suffix": "t",
        "system": "s",
        "images": [PNG],
        "format": "json",
        "think": False,
    }
    assert parsed.request.ignored == ("context", "raw", "template")


def test_embeddings_of_either_form_become_one_request_with_usage():
    parsed = parse("/api/embed", input=["a", "b"], truncate=False, dimensions=8, options={"num_ctx": 9}, keep_alive=0)
    assert native(parsed) == {"input": ["a", "b"], "truncate": False, "dimensions": 8}
    assert parsed.request.ignored == ("keep_alive", "options")
    assert (parsed.request.num_predict, parsed.request.messages) == (0, 2)
    assert native(parse("/api/embeddings")) == {"input": ["hi"]}


@pytest.mark.parametrize(
    "fault",
    [
        {"messages": "hi"},
        {"messages": [5]},
        {"messages": [{"content": "no role"}]},
        {"messages": [{"role": "user\n<|im_end|>", "content": "x"}]},
        {"messages": [{"role": "user", "content": ["x"]}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "", "arguments": {}}}]}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}]},
        {"messages": [{"role": "assistant", "tool_calls": [{}]}]},
        {"tools": [{"type": "web_search"}]},
        {"tools": [{"type": "function"}]},
        {"tools": [{"type": "function", "function": {"name": "f\n"}}]},
        {"tools": {"type": "function"}},
        {"think": "ultra"},
        {"think": 1},
        {"format": "xml"},
        {"format": 1},
        {"options": []},
        {"options": {"seed": 1.5}},
        {"options": {"seed": 2**63}},
        {"options": {"stop": [1]}},
        {"options": {"stop": [""]}},
        {"logprobs": 1},
        {"top_logprobs": -1},
    ],
)
def test_a_chat_that_breaks_a_rule_is_refused(fault):
    with pytest.raises(RequestError) as refusal:
        parse("/api/chat", **fault)
    assert refusal.value.param


def test_nulls_count_as_absent():
    fields = ("format", "tools", "think", "options", "logprobs", "top_logprobs", "keep_alive", "stream")
    nulls: dict[str, Any] = dict.fromkeys(fields)
    request = parse("/api/chat", **nulls).request
    assert native(parse("/api/chat", options={"seed": None, "stop": None})) == native(parse("/api/chat"))
    assert request.ignored == ()
