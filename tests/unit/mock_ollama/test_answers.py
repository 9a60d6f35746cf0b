"""What the mock model says follows from the request alone, in Ollama's shapes and with Ollama's errors."""

import base64
import json
import math
from typing import Any

import httpx
import pytest

from deploy.mock_ollama import MockOllama, Model
from deploy.mock_ollama.documents import Writer
from deploy.mock_ollama.tokens import Draw

from .conftest import CHAT

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "required": ["city", "days"],
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1, "maximum": 5}},
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}


async def ask(client: httpx.AsyncClient, path: str = "/api/chat", **body: Any) -> Any:
    reply = await client.post(path, json={**CHAT, "stream": False, **body} if path == "/api/chat" else body)
    return reply.json()


def lines(reply: httpx.Response) -> list[Any]:
    return [json.loads(line) for line in reply.text.splitlines()]


async def test_the_same_request_gives_the_same_bytes_on_every_instance(client):
    async with MockOllama(name="B") as other:
        first = await client.post("/api/chat", json=CHAT)
        second = await client.post("/api/chat", json=CHAT)
        elsewhere = await client.post(f"{other.url}/api/chat", json=CHAT)
    assert first.content == second.content == elsewhere.content


async def test_seed_and_prompt_change_the_text(client):
    texts = {
        (await ask(client, options={"seed": seed}, messages=[{"role": "user", "content": prompt}]))["message"][
            "content"
        ]
        for seed in (1, 2)
        for prompt in ("a", "b")
    }
    assert len(texts) == 4


async def test_streamed_records_add_up_to_the_whole_answer(client):
    records = lines(await client.post("/api/chat", json=CHAT))
    whole = await ask(client)
    assert "".join(record["message"]["content"] for record in records) == whole["message"]["content"]
    assert records[-1]["eval_count"] == len(records) - 1 == whole["eval_count"] == 24
    assert all("eval_count" not in record for record in records[:-1])


async def test_num_predict_cuts_the_answer(client):
    answer = await ask(client, options={"num_predict": 5})
    assert (answer["done_reason"], answer["eval_count"]) == ("length", 5)
    assert (await ask(client, options={"num_predict": -1}))["done_reason"] == "stop"


async def test_a_stop_sequence_ends_the_answer_before_it(client):
    text = (await ask(client))["message"]["content"]
    stop = text.split(" ")[3]
    answer = await ask(client, options={"stop": [f" {stop}"]})
    assert answer["message"]["content"] == text[: text.index(f" {stop}")]
    assert answer["done_reason"] == "stop"


async def test_tokens_and_records_follow_the_settings(mock, client):
    mock.set_settings(tokens=10, tokens_per_record=4)
    records = lines(await client.post("/api/chat", json=CHAT))
    assert len(records) == 4
    assert records[-1]["eval_count"] == 10


async def test_prompt_count_grows_with_the_prompt_and_stops_at_num_ctx(client):
    long = [{"role": "user", "content": "word " * 400}]
    assert (await ask(client))["prompt_eval_count"] < 40
    assert 500 < (await ask(client, messages=long))["prompt_eval_count"] < 2000
    assert (await ask(client, messages=long, options={"num_ctx": 64}))["prompt_eval_count"] == 64


async def test_a_thinking_model_thinks_first_unless_told_not_to(client):
    records = lines(await client.post("/api/chat", json={**CHAT, "model": "qwen3:8b", "think": "low"}))
    kinds = ["thinking" if "thinking" in record["message"] else "content" for record in records]
    assert kinds == ["thinking"] * 6 + ["content"] * 25
    assert "thinking" in (await ask(client, model="qwen3:8b"))["message"]
    assert "thinking" not in (await ask(client, model="qwen3:8b", think=False))["message"]
    answer = await ask(client, "/api/generate", model="qwen3:8b", prompt="x", think=True, stream=False)
    assert answer["thinking"]


async def test_thinking_with_a_format_counts_the_second_pass_only(client):
    plain = await ask(client, model="qwen3:8b")
    twice = await ask(client, model="qwen3:8b", format="json")
    assert len(twice["message"]["thinking"].split()) >= 12
    assert twice["prompt_eval_count"] == plain["prompt_eval_count"] + 12
    once = await ask(client, model="qwen3:8b", format="json", think=False)
    assert abs(twice["eval_count"] - once["eval_count"]) < 6


async def test_format_json_gives_json_and_a_schema_is_satisfied(client):
    json.loads((await ask(client, format="json"))["message"]["content"])
    schema = {
        "type": "object",
        "required": ["name", "tags", "kind"],
        "properties": {
            "name": {"type": "string", "minLength": 3, "maxLength": 5},
            "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 3},
            "kind": {"anyOf": [{"const": 7}, {"type": "null"}]},
            "child": {"$ref": "#/$defs/child"},
        },
        "$defs": {"child": {"type": "object", "properties": {"child": {"$ref": "#/$defs/child"}}}},
    }
    document = json.loads((await ask(client, format=schema))["message"]["content"])
    assert 3 <= len(document["name"]) <= 5
    assert len(document["tags"]) == 3
    assert set(document["tags"]) <= {"a", "b"}
    assert document["kind"] == 7
    assert isinstance(document["child"], dict)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 5},
        {"type": "integer", "minimum": 10, "multipleOf": 7},
        {"type": "number", "maximum": -1},
    ],
)
def test_numbers_keep_their_limits(schema):
    number = Writer(schema, Draw("x")).write(schema)
    assert schema.get("exclusiveMinimum", -1e9) < number < schema.get("exclusiveMaximum", 1e9)
    assert schema.get("minimum", -1e9) <= number <= schema.get("maximum", 1e9)
    assert number % schema.get("multipleOf", 1) == 0


async def test_the_only_tool_is_called_and_its_result_is_quoted(client):
    answer = await ask(client, tools=[WEATHER])
    call = answer["message"]["tool_calls"][0]
    assert call["id"].startswith("call_")
    assert (call["function"]["index"], call["function"]["name"]) == (0, "get_weather")
    assert isinstance(call["function"]["arguments"]["city"], str)
    assert 1 <= call["function"]["arguments"]["days"] <= 5
    after = [*CHAT["messages"], answer["message"], {"role": "tool", "tool_name": "get_weather", "content": "rain, 7°"}]
    assert '"rain, 7°"' in (await ask(client, tools=[WEATHER], messages=after))["message"]["content"]


async def test_of_several_tools_the_ones_named_are_called(client):
    named = [{"role": "user", "content": "use clock now"}]
    calls = (await ask(client, tools=[WEATHER, CLOCK], messages=named))["message"]["tool_calls"]
    assert [call["function"]["name"] for call in calls] == ["clock"]
    assert "tool_calls" not in (await ask(client, tools=[WEATHER, CLOCK]))["message"]


async def test_images_are_mentioned_and_bad_ones_refused(client):
    image = base64.b64encode(b"picture").decode()
    good = [{"role": "user", "content": "look", "images": [image, image]}]
    assert (await ask(client, model="gemma3:4b", messages=good))["message"]["content"].startswith("[2 image(s)]")
    bad = [{"role": "user", "content": "look", "images": ["not base64!"]}]
    assert "illegal base64" in (await ask(client, model="gemma3:4b", messages=bad))["error"]


async def test_logprobs_come_with_every_token(client):
    records = lines(await client.post("/api/chat", json={**CHAT, "logprobs": True, "top_logprobs": 3}))
    for record in records[:-1]:
        entry = record["logprobs"][0]
        assert entry["token"] == record["message"]["content"]
        assert bytes(entry["bytes"]).decode() == entry["token"]
        assert entry["logprob"] < 0
        assert [alternative["logprob"] for alternative in entry["top_logprobs"]] == sorted(
            (alternative["logprob"] for alternative in entry["top_logprobs"]), reverse=True
        )
        assert len(entry["top_logprobs"]) == 3
    assert "logprobs" not in records[-1]
    assert len((await ask(client, logprobs=True))["logprobs"]) == 24


async def test_an_empty_request_loads_and_keep_alive_zero_unloads(client):
    assert (await ask(client, messages=[]))["done_reason"] == "load"
    assert [model["name"] for model in (await client.get("/api/ps")).json()["models"]] == ["llama3.2:latest"]
    answer = await ask(client, "/api/generate", model="llama3.2", keep_alive=0)
    assert (answer["done_reason"], answer["response"]) == ("unload", "")
    assert "eval_count" not in answer
    assert (await client.get("/api/ps")).json()["models"] == []


async def test_other_runner_options_reload_the_model(mock, client):
    mock.set_settings(load_delay_ms=40)
    answers = [await ask(client, options={"num_ctx": size}) for size in (4096, 4096, 8192)]
    assert mock.stats()["loads_total"] == 2
    assert [answer["load_duration"] > 50_000_000 for answer in answers] == [True, False, True]
    assert (await client.get("/api/ps")).json()["models"][0]["context_length"] == 8192
    await ask(client, options={"num_ctx": 8192}, shift=False)
    assert mock.stats()["loads_total"] == 3


async def test_debug_render_only_gives_the_prompt_away_without_usage(client):
    answer = await ask(client, _debug_render_only=True)
    assert "assistant of the operator" in answer["_debug_info"]["rendered_template"]
    assert "eval_count" not in answer


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/api/chat", b"", 400, "missing request body"),
        ("/api/chat", b"{", 400, "unexpected EOF"),
        ("/api/chat", {"model": "nope"}, 404, "model 'nope' not found"),
        ("/api/chat", {}, 400, "model is required"),
        ("/api/chat", {"model": "a b"}, 400, "invalid model name"),
        ("/api/generate", {"model": "nope"}, 404, "model 'nope' not found"),
        ("/api/embed", {"model": "nope", "input": "x"}, 404, 'model "nope" not found, try pulling it first'),
        ("/api/show", {"model": "nope"}, 404, "model 'nope' not found"),
        ("/api/chat", {**CHAT, "top_logprobs": 21}, 400, "top_logprobs must be between 0 and 20"),
        ("/api/chat", {**CHAT, "think": True}, 400, '"llama3.2" does not support thinking'),
        (
            "/api/chat",
            {**CHAT, "model": "gemma3:4b", "tools": [CLOCK]},
            400,
            "registry.ollama.ai/library/gemma3:4b does not support tools",
        ),
        ("/api/chat", {**CHAT, "model": "nomic-embed-text"}, 400, '"nomic-embed-text" does not support chat'),
        ("/api/generate", {"model": "nomic-embed-text", "prompt": "x"}, 400, '"nomic-embed-text" does not support gen'),
        ("/api/chat", {**CHAT, "options": {"seed": "x"}}, 500, 'option "seed" must be of type integer'),
        ("/api/generate", {"model": "llama3.2", "prompt": "x", "raw": True, "system": "y"}, 400, "raw mode does not"),
        ("/api/chat", {**CHAT, "format": "xml"}, 500, 'invalid format: "\\"xml\\""; expected "json" or a valid'),
        ("/api/chat", {**CHAT, "format": {"type": "array", "minItems": "x"}}, 500, "invalid format"),
        ("/api/chat", {**CHAT, "format": [1]}, 500, "invalid format"),
        ("/api/embed", {"model": "nomic-embed-text", "input": 7}, 400, "invalid input type"),
        (
            "/api/embed",
            {"model": "nomic-embed-text", "input": "x" * 9000, "truncate": False},
            400,
            "the input length exceeds the context length",
        ),
    ],
)
async def test_errors_have_ollamas_status_and_words(client, path, body, status, message):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    reply = await client.post(path, content=raw)
    assert reply.status_code == status
    assert message in reply.json()["error"]
    assert reply.headers["content-type"] == "application/json; charset=utf-8"


@pytest.mark.parametrize(
    "name",
    [
        "LLAMA3.2",
        " llama3.2 ",
        "library/llama3.2",
        "https://registry.ollama.ai/library/llama3.2:latest",
        "llama3.2:local",
    ],
)
async def test_all_spellings_of_a_name_find_the_model_and_are_echoed(client, name):
    assert (await ask(client, model=name))["model"] == name


async def test_cloud_names_and_remote_stubs_exist_only_when_put_there(mock, client):
    assert (await client.post("/api/chat", json={**CHAT, "model": "llama3.2:cloud"})).status_code == 404
    mock.set_models([Model(name="big:120b-cloud", remote_model="big:120b", remote_host="https://ollama.com:443")])
    answer = await ask(client, model="big:120b-cloud")
    assert (answer["remote_model"], answer["remote_host"]) == ("big:120b", "https://ollama.com:443")


async def test_embeddings_are_unit_vectors_that_depend_on_the_text(client):
    answer = await ask(client, "/api/embed", model="nomic-embed-text", input=["a", "b", "a"])
    first, second, third = answer["embeddings"]
    assert len(first) == 768
    assert first == third != second
    assert math.isclose(math.hypot(*first), 1, rel_tol=1e-6)
    assert answer["prompt_eval_count"] == 3
    short = await ask(client, "/api/embed", model="nomic-embed-text", input="a", dimensions=4)
    assert len(short["embeddings"][0]) == 4
    assert math.isclose(math.hypot(*short["embeddings"][0]), 1, rel_tol=1e-6)


async def test_the_legacy_embedding_route_tells_no_usage(client):
    answer = await ask(client, "/api/embeddings", model="nomic-embed-text", prompt="a")
    assert answer.keys() == {"embedding"}
    assert (await ask(client, "/api/embeddings", model="nomic-embed-text"))["embedding"] == []
    empty = await ask(client, "/api/embed", model="nomic-embed-text", input="")
    assert empty == {"model": "nomic-embed-text", "embeddings": []}


async def test_show_tells_what_a_gateway_has_to_hold_back(client):
    shown = (await client.post("/api/show", json={"model": "qwen3:8b"})).json()
    assert shown["capabilities"] == ["completion", "tools", "thinking"]
    assert shown["model_info"]["general.architecture"] == "qwen3"
    assert shown["model_info"]["qwen3.context_length"] == 40960
    assert {"template", "license", "modelfile", "parameters", "details"} <= shown.keys()


async def test_characters_that_go_escapes_are_escaped(client):
    reply = await client.post("/api/chat", json={**CHAT, "model": "<b>&"})
    assert reply.content == b'{"error":"invalid model name"}'
    messages = [{"role": "tool", "content": "<&>\u2028"}]
    reply = await client.post("/api/chat", json={**CHAT, "messages": messages, "stream": False})
    assert b"\\u003c\\u0026\\u003e\\u2028" in reply.content


async def test_an_answer_begins_with_the_last_message_where_that_is_set(mock, client):
    assert not (await ask(client))["message"]["content"].startswith("hello")
    mock.set_settings(echoes=True)
    assert (await ask(client))["message"]["content"].startswith("hello ")
