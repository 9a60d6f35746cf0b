import json
from typing import Any

import pytest
from ollama import ChatResponse, EmbeddingsResponse, EmbedResponse, GenerateResponse

from dataplane.api.dialect import Rendering
from dataplane.errors import StreamBrokenError
from dataplane.native import EmbedReply
from tests.contract.frames.samples import CREATED, FINAL, LOGPROBS, chat, embedded, generated, record, tool_call
from tests.unit.api.endpoints import parse


def rendering(endpoint: str, **fields: Any) -> Rendering:
    return parse(endpoint, model="LLaMA3", **fields).rendering("r1", 1_700_000_000)


def lines_of(raw: bytes) -> list[Any]:
    assert raw.endswith(b"\n")
    return [json.loads(line) for line in raw.split(b"\n")[:-1]]


def test_a_chat_stream_is_written_as_ollama_writes_it():
    reply = rendering("/api/chat")
    first, last = lines_of(reply.batch([chat("Hé"), chat(final=True)]))
    assert first == {
        "model": "LLaMA3",
        "created_at": CREATED,
        "message": {"role": "assistant", "content": "Hé"},
        "done": False,
    }
    assert list(first) == ["model", "created_at", "message", "done"]
    assert last == {"model": "LLaMA3", "created_at": CREATED, "message": {"role": "assistant", "content": ""}, **FINAL}
    assert list(last) == ["model", "created_at", "message", *FINAL]
    assert (reply.stream, reply.content_type) == (True, b"application/x-ndjson")
    for line in (first, last):
        ChatResponse.model_validate(line)


def test_a_generated_stream_is_written_as_ollama_writes_it():
    reply = rendering("/api/generate")
    thought, first, last = lines_of(reply.batch([generated(thinking="hm"), generated("Hé"), generated(final=True)]))
    assert list(thought) == ["model", "created_at", "response", "thinking", "done"]
    assert first == {"model": "LLaMA3", "created_at": CREATED, "response": "Hé", "done": False}
    assert list(last) == ["model", "created_at", "response", *FINAL]
    for line in (thought, first, last):
        GenerateResponse.model_validate(line)


def test_batches_of_any_size_give_the_same_bytes():
    records = [chat("a"), chat("", thinking="b"), chat("c", tool_calls=[tool_call()]), chat(final=True)]
    whole = rendering("/api/chat").batch(records)
    assert b"".join(map(rendering("/api/chat").batch, [[record] for record in records])) == whole
    assert rendering("/api/chat").batch([]) == b""


def test_tool_calls_and_thinking_stay_where_they_were():
    line = json.loads(rendering("/api/chat").batch([chat(thinking="hm", tool_calls=[tool_call(id="call_1")])]))
    assert line["message"] == {
        "role": "assistant",
        "content": "",
        "thinking": "hm",
        "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Zürich"}}, "id": "call_1"}],
    }


def test_a_reply_that_is_not_streamed_is_one_frame():
    reply = rendering("/api/chat", stream=False)
    records = [
        chat(thinking="h"),
        chat(thinking="m"),
        chat("a", logprobs=LOGPROBS[:1]),
        chat("b", tool_calls=[tool_call("f")], logprobs=LOGPROBS[1:]),
        chat(tool_calls=[tool_call("g")], final=True),
    ]
    frame = json.loads(reply.whole(records))
    calls = [{"function": {"name": name, "arguments": {"city": "Zürich"}}} for name in ("f", "g")]
    assert frame == {
        "model": "LLaMA3",
        "created_at": CREATED,
        "message": {"role": "assistant", "content": "ab", "thinking": "hm", "tool_calls": calls},
        "logprobs": LOGPROBS,
        **FINAL,
    }
    assert reply.content_type == b"application/json; charset=utf-8"
    ChatResponse.model_validate(frame)
    frame = json.loads(rendering("/api/generate", stream=False).whole([generated("a"), generated("b", final=True)]))
    assert frame == {"model": "LLaMA3", "created_at": CREATED, "response": "ab", **FINAL}


def test_embeddings_are_written_in_both_forms():
    frame = json.loads(rendering("/api/embed").whole(embedded([0.5, -1.0], [0.25, 2.0])))
    assert frame == {
        "model": "LLaMA3",
        "embeddings": [[0.5, -1.0], [0.25, 2.0]],
        "total_duration": 14143917,
        "load_duration": 1019500,
        "prompt_eval_count": 8,
    }
    EmbedResponse.model_validate(frame)
    legacy = json.loads(rendering("/api/embeddings").whole(embedded([0.5, -1.0])))
    assert legacy == {"embedding": [0.5, -1.0]}
    EmbeddingsResponse.model_validate(legacy)
    assert json.loads(rendering("/api/embeddings").whole(EmbedReply(embeddings=[]))) == {"embedding": []}


@pytest.mark.parametrize("count", [-1, 0, 2**63, 10**30, 1.5, "7", True, None, [1], {}])
def test_counts_that_are_none_are_left_out(count):
    final = {name: count for name in FINAL if name.endswith(("count", "duration"))}
    line = json.loads(rendering("/api/chat").batch([record(message={"role": "x"}, done=True, **final)]))
    assert set(line) == {"model", "created_at", "message", "done"}
    ChatResponse.model_validate(line)


def test_nothing_of_the_backend_comes_through():
    for endpoint, build in (("/api/chat", chat), ("/api/generate", generated)):
        records = [build("x"), build(final=True)]
        assert b"canary" not in rendering(endpoint).batch(records)
        assert b"canary" not in rendering(endpoint, stream=False).whole(records)
        assert b"context" not in rendering(endpoint).batch(records)


@pytest.mark.parametrize("moment", ["", "now", "2026-08-04", '2026-08-04T19:22:45Z"\n{"done":true}'])
def test_a_moment_that_is_none_is_replaced_by_ours(moment):
    raw = rendering("/api/chat").batch([record(message={"role": "assistant"}, created_at=moment)])
    assert lines_of(raw)[0]["created_at"] == "2023-11-14T22:13:20Z"


@pytest.mark.parametrize("arguments", ["text", [1], 5, True])
def test_arguments_that_are_no_object_become_an_empty_one(arguments):
    line = json.loads(rendering("/api/chat").batch([chat(tool_calls=[tool_call("f", arguments)])]))
    assert line["message"]["tool_calls"][0]["function"]["arguments"] == {}


@pytest.mark.parametrize("logprobs", ["text", [1], [{"token": 5}], {"a": 1}])
def test_malformed_log_probabilities_are_left_out(logprobs):
    assert "logprobs" not in json.loads(rendering("/api/chat").batch([chat("x", logprobs=logprobs)]))


def test_a_stream_that_breaks_ends_with_an_error_line():
    assert json.loads(rendering("/api/chat").broken(StreamBrokenError("canary"))) == {
        "error": "upstream interrupted",
        "code": "upstream_interrupted",
        "request_id": "r1",
    }


def test_replies_of_the_wrong_kind_are_mistakes_of_ours():
    with pytest.raises(TypeError):
        rendering("/api/chat", stream=False).whole(embedded([1.0]))
    with pytest.raises(TypeError):
        rendering("/api/chat", stream=False).whole([])
    with pytest.raises(TypeError):
        rendering("/api/embed").whole([chat(final=True)])
    with pytest.raises(TypeError):
        rendering("/api/embed").batch([chat(final=True)])
