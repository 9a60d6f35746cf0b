import base64
import json
import struct
from collections.abc import Sequence
from typing import Any

import pytest
from openai.types import Completion, CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from dataplane.api.dialect import Rendering
from dataplane.errors import StreamBrokenError
from dataplane.native import Record
from tests.contract.frames.samples import FINAL, HOSTILE, LOGPROBS, chat, embedded, generated, record, tool_call
from tests.unit.api.endpoints import parse

CHAT = "/v1/chat/completions"
HEAD = {
    "id": "chatcmpl-r1",
    "object": "chat.completion.chunk",
    "created": 1_700_000_000,
    "model": "LLaMA3",
    "system_fingerprint": "fp_ollama",
}
USAGE = {"prompt_tokens": 26, "completion_tokens": 282, "total_tokens": 308}
LENGTH = {**FINAL, "done_reason": "length"}


def rendering(endpoint: str = CHAT, **fields: Any) -> Rendering:
    return parse(endpoint, model="LLaMA3", **fields).rendering("r1", 1_700_000_000)


def events_of(raw: bytes) -> list[Any]:
    """The JSON of each event; the text ``[DONE]`` for the last."""
    assert raw.endswith(b"\n\n")
    events: list[Any] = []
    for event in raw.decode().split("\n\n")[:-1]:
        head, _, data = event.partition("data: ")
        assert head == ""
        assert "\n" not in data
        events.append(data if data == "[DONE]" else json.loads(data))
    return events


def streamed(records: Sequence[Record], **fields: Any) -> list[Any]:
    return events_of(rendering(stream=True, **fields).batch(records))


def chunk(delta: dict[str, Any], finish_reason: str | None = None, **fields: Any) -> dict[str, Any]:
    return {**HEAD, "choices": [{"index": 0, "delta": delta, **fields, "finish_reason": finish_reason}]}


def test_a_stream_begins_with_the_role_and_ends_with_reason_and_done():
    events = streamed([chat("Hé"), chat("llo"), chat(final=True)])
    assert events == [
        chunk({"role": "assistant", "content": "Hé"}),
        chunk({"content": "llo"}),
        chunk({}, "stop"),
        "[DONE]",
    ]
    for event in events[:-1]:
        ChatCompletionChunk.model_validate(event, strict=True)
    assert list(events[0]) == ["id", "object", "created", "model", "system_fingerprint", "choices"]


def test_usage_comes_in_a_chunk_without_choices_and_only_on_request():
    events = streamed([chat("x"), chat(final=True)], stream_options={"include_usage": True})
    assert events[-2:] == [{**HEAD, "choices": [], "usage": USAGE}, "[DONE]"]
    assert all("usage" not in event for event in events[:-2])
    ChatCompletionChunk.model_validate(events[-2], strict=True)
    assert all("usage" not in event for event in streamed([chat("x"), chat(final=True)])[:-1])


def test_thinking_is_reasoning_in_chunks_of_its_own():
    events = streamed([chat(thinking="h"), chat("a", thinking="m"), chat(final=True)])
    assert [event["choices"][0]["delta"] for event in events[:-1]] == [
        {"role": "assistant", "content": "", "reasoning": "h"},
        {"content": "", "reasoning": "m"},
        {"content": "a"},
        {},
    ]


def test_tool_calls_come_whole_and_decide_the_reason():
    calls = [tool_call("f", {"a": "<b>"}, id="call_x"), tool_call("g", {})]
    events = streamed([chat(tool_calls=calls), chat(tool_calls=[tool_call("h", [])]), chat(final=True)])
    deltas = [event["choices"][0]["delta"] for event in events[:-1]]
    first = deltas[0]["tool_calls"]
    assert [call["index"] for call in first + deltas[1]["tool_calls"]] == [0, 1, 2]
    assert first[0] == {
        "index": 0,
        "id": "call_x",
        "type": "function",
        "function": {"name": "f", "arguments": '{"a":"<b>"}'},
    }
    assert deltas[1]["tool_calls"][0]["function"] == {"name": "h", "arguments": "{}"}
    ids = [call["id"] for call in first + deltas[1]["tool_calls"]]
    assert len(set(ids)) == 3
    assert all(len(identity) <= 40 for identity in ids)
    assert events[-2]["choices"][0]["finish_reason"] == "tool_calls"
    for event in events[:-1]:
        ChatCompletionChunk.model_validate(event, strict=True)


def test_the_length_limit_is_named_even_after_a_tool_call():
    records = [chat("x", tool_calls=[tool_call()]), record(message={"role": "assistant"}, **LENGTH)]
    assert streamed(records)[-2]["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("records", [[chat(final=True)], [chat(), chat(), chat(final=True)]])
def test_an_empty_answer_still_has_a_role_and_an_end(records):
    assert streamed(records) == [chunk({"role": "assistant", "content": ""}), chunk({}, "stop"), "[DONE]"]


def test_text_in_the_final_record_is_not_lost():
    events = streamed([chat("a"), chat("b", final=True)])
    assert events[1:] == [chunk({"content": "b"}), chunk({}, "stop"), "[DONE]"]


def test_log_probabilities_have_the_shape_of_the_dialect():
    expected = {
        "content": [
            {
                "token": "Hé",
                "logprob": -0.25,
                "bytes": [72, 195, 169],
                "top_logprobs": [{"token": "He", "logprob": -1.5, "bytes": [72, 101]}],
            },
            {"token": "!", "logprob": -0.5, "bytes": [33], "top_logprobs": []},
        ]
    }
    records = [chat("Hé!", logprobs=LOGPROBS), chat(final=True)]
    event = streamed(records, logprobs=True)[0]
    assert event["choices"][0]["logprobs"] == expected
    ChatCompletionChunk.model_validate(event, strict=True)
    whole = json.loads(rendering(logprobs=True).whole(records))
    assert whole["choices"][0]["logprobs"] == expected
    ChatCompletion.model_validate(whole, strict=True)


def test_a_reply_that_is_not_streamed_is_one_completion():
    whole = json.loads(rendering().whole([chat(thinking="hm"), chat("a"), chat("b"), chat(final=True)]))
    assert whole == {
        **HEAD,
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "ab", "reasoning": "hm"},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
    }
    ChatCompletion.model_validate(whole, strict=True)


def test_content_beside_tool_calls_is_null_when_there_is_none():
    whole = json.loads(rendering().whole([chat(tool_calls=[tool_call(id="call_x")]), chat(final=True)]))
    choice = whole["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "call_x", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Zürich"}'}}
        ],
    }
    ChatCompletion.model_validate(whole, strict=True)


def test_batches_of_any_size_give_the_same_bytes():
    records = [
        chat(thinking="t"),
        chat("a", tool_calls=[tool_call()]),
        chat(tool_calls=[tool_call()]),
        chat(final=True),
    ]
    for endpoint in (CHAT, "/v1/completions"):
        whole = rendering(endpoint, stream=True).batch(records)
        one_by_one = rendering(endpoint, stream=True)
        assert b"".join(one_by_one.batch([record]) for record in records) == whole
        assert one_by_one.batch([]) == b""


def test_a_legacy_stream_has_text_a_reason_and_an_end():
    fields = {"stream": True, "stream_options": {"include_usage": True}, "logprobs": 1}
    reply = rendering("/v1/completions", **fields)
    events = events_of(
        reply.batch(
            [generated("Hé", logprobs=LOGPROBS[:1]), generated("!", logprobs=LOGPROBS[1:]), generated(final=True)]
        )
    )
    head = {**HEAD, "id": "cmpl-r1", "object": "text_completion"}
    first = {"tokens": ["Hé"], "token_logprobs": [-0.25], "top_logprobs": [{"He": -1.5}], "text_offset": [0]}
    second = {"tokens": ["!"], "token_logprobs": [-0.5], "top_logprobs": [{}], "text_offset": [2]}
    assert events == [
        {**head, "choices": [{"text": "Hé", "index": 0, "logprobs": first, "finish_reason": None}]},
        {**head, "choices": [{"text": "!", "index": 0, "logprobs": second, "finish_reason": None}]},
        {**head, "choices": [{"text": "", "index": 0, "logprobs": None, "finish_reason": "stop"}]},
        {**head, "choices": [], "usage": USAGE},
        "[DONE]",
    ]
    assert reply.content_type == b"text/event-stream"


def test_a_legacy_completion_is_one_text():
    reply = rendering("/v1/completions")
    whole = json.loads(
        reply.whole([generated(thinking="hm"), generated("a"), generated("b"), record(response="", **LENGTH)])
    )
    assert whole["choices"] == [{"text": "ab", "index": 0, "logprobs": None, "finish_reason": "length"}]
    assert whole["usage"] == USAGE
    Completion.model_validate(whole, strict=True)
    assert reply.content_type == b"application/json"


def test_embeddings_come_as_numbers_or_as_packed_floats():
    reply = embedded([0.5, -1.0], [0.1, 2.0])
    floats = json.loads(rendering("/v1/embeddings").whole(reply))
    assert floats == {
        "object": "list",
        "data": [
            {"object": "embedding", "embedding": [0.5, -1.0], "index": 0},
            {"object": "embedding", "embedding": [0.1, 2.0], "index": 1},
        ],
        "model": "LLaMA3",
        "usage": {"prompt_tokens": 8, "total_tokens": 8},
    }
    CreateEmbeddingResponse.model_validate(floats, strict=True)
    packed = json.loads(rendering("/v1/embeddings", encoding_format="base64").whole(reply))
    assert struct.unpack("<2f", base64.b64decode(packed["data"][0]["embedding"])) == (0.5, -1.0)


@pytest.mark.parametrize("count", [-1, 2**63, 10**30, 1.5, "7", True, None, [1]])
def test_counts_that_are_none_are_zero(count):
    final = record(message={"role": "assistant"}, done=True, prompt_eval_count=count, eval_count=count)
    whole = json.loads(rendering().whole([final]))
    assert whole["usage"] == {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


def test_nothing_of_the_backend_comes_through():
    records = [chat("x", tool_calls=[tool_call(id="call\ncanary canary")]), chat(final=True)]
    assert "canary" in json.dumps(HOSTILE)
    for raw in (rendering(stream=True).batch(records), rendering().whole(records)):
        assert b"canary" not in raw


def test_a_stream_that_breaks_ends_with_an_error_and_without_done():
    reply = rendering(stream=True)
    reply.batch([chat("x")])
    assert events_of(reply.broken(StreamBrokenError("canary"))) == [
        {
            "error": {
                "message": "upstream interrupted",
                "type": "api_error",
                "param": None,
                "code": "upstream_interrupted",
            }
        }
    ]


def test_replies_of_the_wrong_kind_are_mistakes_of_ours():
    with pytest.raises(TypeError):
        rendering().whole(embedded([1.0]))
    with pytest.raises(TypeError):
        rendering("/v1/embeddings").whole([chat(final=True)])
    with pytest.raises(TypeError):
        rendering("/v1/embeddings").batch([chat(final=True)])
