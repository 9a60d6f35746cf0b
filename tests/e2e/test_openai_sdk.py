"""The real OpenAI SDK, unmodified, against the running gateway."""

from __future__ import annotations

import base64
import json
import struct

import openai
import pytest
from openai import OpenAI

from tests.canaries import PROMPT

CHAT = "llama3.2"
THINKING = "qwen3:8b"
VISION = "gemma3:4b"
EMBEDDING = "nomic-embed-text"
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture
def client(gateway, shared_key, mock):
    with OpenAI(base_url=f"{gateway.url}/v1", api_key=shared_key, max_retries=0, timeout=20) as client:
        yield client


def ask(text: str) -> list:
    return [{"role": "user", "content": text}]


def test_chat_answers_with_usage(client):
    reply = client.chat.completions.create(model=CHAT, messages=ask("Say hello"))
    assert reply.object == "chat.completion"
    assert reply.model == CHAT
    assert reply.id.startswith("chatcmpl-")
    choice = reply.choices[0]
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason == "stop"
    assert reply.usage.prompt_tokens > 0
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_streamed_chat_is_the_same_text(client):
    whole = client.chat.completions.create(model=CHAT, messages=ask("Count"), seed=7)
    chunks = list(client.chat.completions.create(model=CHAT, messages=ask("Count"), seed=7, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert all(chunk.usage is None for chunk in chunks)


def test_include_usage_adds_one_last_chunk(client):
    stream = client.chat.completions.create(
        model=CHAT, messages=ask(PROMPT), stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens > 0
    assert [chunk for chunk in chunks[:-1] if chunk.usage is not None] == []


def test_seed_decides_the_text(client):
    def text(seed: int) -> str:
        reply = client.chat.completions.create(model=CHAT, messages=ask("Tell"), seed=seed)
        return reply.choices[0].message.content

    assert text(1) == text(1)
    assert text(1) != text(2)


def test_stop_ends_the_text_before_the_sequence(client):
    whole = client.chat.completions.create(model=CHAT, messages=ask("Tell"), seed=3).choices[0].message.content
    word = whole.split()[3]
    reply = client.chat.completions.create(model=CHAT, messages=ask("Tell"), seed=3, stop=[word])
    assert word not in reply.choices[0].message.content
    assert reply.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_both_names_of_the_output_limit_hold(client, name):
    reply = client.chat.completions.create(model=CHAT, messages=ask("Tell"), **{name: 3})
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage.completion_tokens == 3


def test_a_tool_is_called_and_its_result_used(client):
    first = client.chat.completions.create(
        model=CHAT, messages=ask("Use get_weather for the weather in Bonn"), tools=[WEATHER]
    )
    choice = first.choices[0]
    assert choice.finish_reason == "tool_calls"
    call = choice.message.tool_calls[0]
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert isinstance(json.loads(call.function.arguments)["city"], str)
    second = client.chat.completions.create(
        model=CHAT,
        messages=[
            *ask("Use get_weather for the weather in Bonn"),
            {"role": "assistant", "content": None, "tool_calls": [call.model_dump()]},
            {"role": "tool", "tool_call_id": call.id, "content": "rainy-42"},
        ],
        tools=[WEATHER],
    )
    assert "rainy-42" in second.choices[0].message.content


def test_a_streamed_tool_call_arrives_whole(client):
    stream = client.chat.completions.create(
        model=CHAT, messages=ask("Use get_weather for Bonn"), tools=[WEATHER], stream=True
    )
    chunks = list(stream)
    calls = [call for chunk in chunks for call in (chunk.choices[0].delta.tool_calls or [])]
    assert len(calls) == 1
    assert calls[0].index == 0
    assert calls[0].function.name == "get_weather"
    json.loads(calls[0].function.arguments)
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_an_image_reaches_a_vision_model(client):
    url = "data:image/png;base64," + base64.b64encode(PNG).decode()
    reply = client.chat.completions.create(
        model=VISION,
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": url}},
                ],
            }
        ],
    )
    assert "1 image" in reply.choices[0].message.content


def test_json_schema_is_followed(client):
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name", "age"],
    }
    reply = client.chat.completions.create(
        model=CHAT,
        messages=ask("A person"),
        response_format={"type": "json_schema", "json_schema": {"name": "person", "schema": schema}},
    )
    person = json.loads(reply.choices[0].message.content)
    assert isinstance(person["name"], str)
    assert isinstance(person["age"], int)


def test_json_object_is_json(client):
    reply = client.chat.completions.create(
        model=CHAT, messages=ask("JSON please"), response_format={"type": "json_object"}
    )
    assert isinstance(json.loads(reply.choices[0].message.content), dict)


def test_reasoning_is_told_apart_from_content(client):
    reply = client.chat.completions.create(model=THINKING, messages=ask("Think"), reasoning_effort="high")
    assert reply.choices[0].message.model_extra["reasoning"]
    assert reply.choices[0].message.content
    stream = client.chat.completions.create(model=THINKING, messages=ask("Think"), reasoning_effort="high", stream=True)
    deltas = [chunk.choices[0].delta for chunk in stream if chunk.choices]
    assert [delta for delta in deltas if (delta.model_extra or {}).get("reasoning")]
    assert [delta for delta in deltas if delta.content]


def test_reasoning_can_be_switched_off(client):
    reply = client.chat.completions.create(model=THINKING, messages=ask("Think"), reasoning_effort="none")
    assert not (reply.choices[0].message.model_extra or {}).get("reasoning")


def test_logprobs_come_with_their_alternatives(client):
    reply = client.chat.completions.create(
        model=CHAT, messages=ask(PROMPT), logprobs=True, top_logprobs=2, max_tokens=4
    )
    tokens = reply.choices[0].logprobs.content
    assert len(tokens) == 4
    assert all(len(token.top_logprobs) == 2 and token.logprob <= 0 for token in tokens)


def test_completions_answer_and_stream(client):
    whole = client.completions.create(model=CHAT, prompt="Once upon a time", seed=5, max_tokens=6)
    assert whole.object == "text_completion"
    assert whole.usage.completion_tokens == 6
    stream = client.completions.create(model=CHAT, prompt="Once upon a time", seed=5, max_tokens=6, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream if chunk.choices) == whole.choices[0].text


def test_embeddings_of_one_and_many(client):
    one = client.embeddings.create(model=EMBEDDING, input=PROMPT, encoding_format="float")
    many = client.embeddings.create(model=EMBEDDING, input=[PROMPT, "world"], encoding_format="float")
    assert many.data[0].embedding == pytest.approx(one.data[0].embedding)
    assert [item.index for item in many.data] == [0, 1]
    assert many.usage.prompt_tokens > 0


def test_base64_embeddings_are_the_same_numbers(client):
    floats = client.embeddings.create(model=EMBEDDING, input=PROMPT, encoding_format="float").data[0].embedding
    encoded = client.embeddings.create(model=EMBEDDING, input=PROMPT, encoding_format="base64").data[0].embedding
    raw = base64.b64decode(encoded)
    assert list(struct.unpack(f"<{len(raw) // 4}f", raw)) == pytest.approx(floats, abs=1e-6)


def test_models_are_listed_and_retrieved(client):
    names = {model.id for model in client.models.list()}
    assert {"llama3.2:latest", "qwen3:8b"} <= names
    assert client.models.retrieve("llama3.2:latest").object == "model"


def test_a_wrong_key_is_an_authentication_error(gateway, mock):
    with (
        OpenAI(base_url=f"{gateway.url}/v1", api_key="nz_wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.chat.completions.create(model=CHAT, messages=ask(PROMPT))


def test_an_unknown_model_is_a_permission_error(client):
    with pytest.raises(openai.PermissionDeniedError) as caught:
        client.chat.completions.create(model="does-not-exist", messages=ask(PROMPT))
    assert caught.value.request_id
    assert caught.value.code


def test_a_malformed_request_is_a_bad_request_error(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=CHAT, messages=ask(PROMPT), temperature="hot")
    assert "temperature" in str(caught.value)


def test_tools_on_a_model_without_them_are_a_bad_request(client):
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=VISION, messages=ask("Use get_weather"), tools=[WEATHER])


def test_too_many_at_once_is_a_rate_limit_error(gateway, mock):
    gateway.tenant("narrow", concurrent=1)
    key = gateway.key("narrow")
    mock.settings(record_delay_ms=50)
    with OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0) as client:
        stream = client.chat.completions.create(model=CHAT, messages=ask("Long"), stream=True)
        next(iter(stream))
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(model=CHAT, messages=ask(PROMPT))
        assert int(caught.value.response.headers["retry-after"]) >= 1
        stream.close()


def test_a_dead_upstream_is_an_internal_server_error(client, mocks):
    for each in mocks:
        each.script({"fault": {"kind": "status", "status": 500}, "match": {"path": "/api/chat"}, "times": 1})
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model=CHAT, messages=ask(PROMPT))
    assert caught.value.status_code == 502
    assert caught.value.response.headers["retry-after"]


def test_a_stream_that_breaks_off_is_an_error_and_never_done(client, mock):
    mock.script({"fault": {"kind": "reset_after_records", "records": 3}, "match": {"path": "/api/chat"}})
    received = []
    with pytest.raises((openai.APIError, openai.APIConnectionError)):
        for chunk in client.chat.completions.create(model=CHAT, messages=ask(PROMPT), stream=True):
            received.append(chunk)  # noqa: PERF402 - what came before the error matters
    assert received
    assert all(chunk.choices[0].finish_reason is None for chunk in received)
