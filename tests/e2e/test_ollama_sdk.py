"""The real Ollama SDK, unmodified, against the running gateway."""

from __future__ import annotations

import base64
import json

import ollama
import pytest

from tests.canaries import PROMPT
from tests.e2e.harness import bearer, eventually
from tests.e2e.test_openai_sdk import PNG

CHAT = "llama3.2"
THINKING = "qwen3:8b"
VISION = "gemma3:4b"
EMBEDDING = "nomic-embed-text"


@pytest.fixture
def client(gateway, shared_key, mock):
    client = ollama.Client(host=gateway.url, headers=bearer(shared_key), timeout=20, trust_env=False)
    yield client
    client._client.close()


def ask(text: str) -> list:
    return [{"role": "user", "content": text}]


def test_chat_answers_with_its_metrics(client):
    reply = client.chat(CHAT, messages=ask("Say hello"))
    assert reply.model == CHAT
    assert reply.message.role == "assistant"
    assert reply.message.content
    assert reply.done is True
    assert reply.done_reason == "stop"
    assert reply.prompt_eval_count > 0
    assert reply.eval_count > 0
    assert reply.total_duration > 0


def test_streamed_chat_is_the_same_text(client):
    whole = client.chat(CHAT, messages=ask("Count"), options={"seed": 7})
    records = list(client.chat(CHAT, messages=ask("Count"), options={"seed": 7}, stream=True))
    assert "".join(record.message.content for record in records) == whole.message.content
    assert [record.done for record in records] == [False] * (len(records) - 1) + [True]
    assert records[-1].eval_count == whole.eval_count
    assert {record.model for record in records} == {CHAT}


def test_generate_answers_and_streams(client):
    whole = client.generate(CHAT, prompt="Once", options={"seed": 5, "num_predict": 6})
    assert whole.done_reason == "length"
    assert whole.eval_count == 6
    records = list(client.generate(CHAT, prompt="Once", options={"seed": 5, "num_predict": 6}, stream=True))
    assert "".join(record.response for record in records) == whole.response


def test_generate_takes_a_system_prompt_and_a_suffix_where_the_model_can_insert(client, mock):
    assert client.generate(CHAT, prompt=PROMPT, system="Be brief").response
    assert mock.requests("/api/generate")[-1]["json"]["system"] == "Be brief"
    with pytest.raises(ollama.ResponseError) as caught:
        client.generate(CHAT, prompt="def f():", suffix="return x")
    assert caught.value.status_code == 400


def test_stop_and_seed_hold(client):
    def text(**options) -> str:
        return client.chat(CHAT, messages=ask("Tell"), options=options).message.content

    assert text(seed=1) == text(seed=1) != text(seed=2)
    word = text(seed=1).split()[3]
    assert word not in text(seed=1, stop=[word])


def test_thinking_is_apart_from_content(client):
    reply = client.chat(THINKING, messages=ask("Think"), think=True)
    assert reply.message.thinking
    assert reply.message.content
    streamed = list(client.generate(THINKING, prompt="Think", think=True, stream=True))
    assert [record for record in streamed if record.thinking]
    assert not client.chat(THINKING, messages=ask("Think"), think=False).message.thinking


def test_a_tool_is_called_and_its_result_used(client):
    def get_weather(city: str) -> str:
        """The weather of a city.

        Args:
            city: its name
        """
        return f"rainy-42 in {city}"

    question = ask("Use get_weather for Bonn")
    first = client.chat(CHAT, messages=question, tools=[get_weather])
    call = first.message.tool_calls[0]
    assert call.function.name == "get_weather"
    assert isinstance(call.function.arguments["city"], str)
    result = {"role": "tool", "tool_name": "get_weather", "content": get_weather(**call.function.arguments)}
    second = client.chat(CHAT, messages=[*question, first.message, result], tools=[get_weather])
    assert "rainy-42" in second.message.content


def test_an_image_reaches_a_vision_model(client):
    message = {"role": "user", "content": "What is this?", "images": [PNG]}
    assert "1 image" in client.chat(VISION, messages=[message]).message.content
    assert "1 image" in client.generate(VISION, prompt="What?", images=[base64.b64encode(PNG).decode()]).response


def test_structured_output_follows_the_schema(client):
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    assert isinstance(
        json.loads(client.chat(CHAT, messages=ask("A person"), format=schema).message.content)["age"], int
    )
    assert isinstance(json.loads(client.generate(CHAT, prompt="JSON", format="json").response), dict)


def test_logprobs_come_with_their_alternatives(client):
    reply = client.chat(CHAT, messages=ask(PROMPT), logprobs=True, top_logprobs=2, options={"num_predict": 4})
    assert len(reply.logprobs) == 4
    assert all(len(token.top_logprobs) == 2 for token in reply.logprobs)


def test_embed_takes_one_and_many(client):
    one = client.embed(EMBEDDING, input=PROMPT)
    many = client.embed(EMBEDDING, input=[PROMPT, "world"])
    assert len(many.embeddings) == 2
    assert list(many.embeddings[0]) == pytest.approx(list(one.embeddings[0]))
    assert many.prompt_eval_count > 0


def test_legacy_embeddings_answer_one_vector(client):
    legacy = client.embeddings(EMBEDDING, prompt=PROMPT).embedding
    assert list(legacy) == pytest.approx(list(client.embed(EMBEDDING, input=PROMPT).embeddings[0]))


def test_list_and_show_tell_what_is_granted_and_no_more(client):
    names = {model.model for model in client.list().models}
    assert {"llama3.2:latest", "qwen3:8b"} <= names
    shown = client.show("llama3.2")
    assert "completion" in shown.capabilities
    assert not shown.template
    assert not shown.modelfile
    assert not shown.license


def test_a_wrong_key_is_a_response_error(gateway, mock):
    client = ollama.Client(host=gateway.url, headers=bearer("nz_wrong"), trust_env=False)
    with pytest.raises(ollama.ResponseError) as caught:
        client.chat(CHAT, messages=ask(PROMPT))
    assert caught.value.status_code == 401
    client._client.close()


@pytest.mark.parametrize("call", ["pull", "push", "delete", "copy", "create", "ps"])
def test_management_is_forbidden(client, mock, call):
    arguments = {"copy": ("a", "b"), "create": ("a", None, "b"), "ps": ()}.get(call, ("llama3.2",))
    with pytest.raises(ollama.ResponseError) as caught:
        getattr(client, call)(*arguments)
    assert caught.value.status_code == 403
    assert mock.requests() == []


def test_an_unknown_model_is_forbidden(client):
    for attempt in (
        lambda: client.chat("does-not-exist", messages=ask(PROMPT)),
        lambda: client.generate("does-not-exist", prompt=PROMPT),
        lambda: client.embed("does-not-exist", input=PROMPT),
        lambda: client.show("does-not-exist"),
    ):
        with pytest.raises(ollama.ResponseError) as caught:
            attempt()
        assert caught.value.status_code == 403


def test_a_stream_that_breaks_off_raises(client, mock):
    mock.script({"fault": {"kind": "error_line_after_records", "records": 2}, "match": {"path": "/api/chat"}})
    received = []
    with pytest.raises(ollama.ResponseError):
        for record in client.chat(CHAT, messages=ask(PROMPT), stream=True):
            received.append(record)  # noqa: PERF402 - what came before the error matters
    assert received
    assert not any(record.done for record in received)


def test_a_stream_that_is_cut_on_purpose_is_no_error_in_the_log(client, gateway, mock):
    log = gateway.state / "logs" / "dataplane-1.log"
    before = log.stat().st_size
    mock.script({"fault": {"kind": "reset_after_records", "records": 2}, "match": {"path": "/api/chat"}})
    with pytest.raises(ollama.ResponseError):
        list(client.chat(CHAT, messages=ask(PROMPT), stream=True))

    def said() -> str:
        written = log.read_bytes()[before:].decode()
        return written if '"outcome":"upstream_failed"' in written else ""

    assert '"level":"error"' not in eventually(said, what="the line of the request")
