"""Each case, asked of llama.cpp and of us, compared."""

from __future__ import annotations

import base64
import json
import struct

import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from tests.contract.llama_cpp.cases import ANSWERED, KINDS, REFUSED
from tests.contract.llama_cpp.conftest import Replies
from tests.contract.llama_cpp.differences import SDK_GAPS, STORIES, undeclared, unneeded
from tests.contract.llama_cpp.frames import Frame, Reply, story
from tests.contract.llama_cpp.shapes import Difference, Kind, differences, faults, shape, values

STREAMS = [case.name for case in ANSWERED if case.streamed]
# Words that mean something to a client's program, and so must be the same and not only of the same type.
WORDS = {
    Kind.CHAT: (
        "object", "choices[].index", "choices[].finish_reason", "choices[].message.role",
        "choices[].message.tool_calls[].type", "choices[].message.tool_calls[].function.name",
    ),
    Kind.CHAT_CHUNK: (
        "object", "choices[].index", "choices[].finish_reason", "choices[].delta.role",
        "choices[].delta.tool_calls[].index", "choices[].delta.tool_calls[].type",
        "choices[].delta.tool_calls[].function.name",
    ),
    Kind.COMPLETION: ("object", "choices[].index", "choices[].finish_reason"),
    Kind.COMPLETION_CHUNK: ("object", "choices[].index", "choices[].finish_reason"),
    Kind.EMBEDDINGS: ("object", "data[].object", "data[].index"),
    Kind.MODELS: ("object", "data[].object"),
    Kind.ERROR: ("error.type",),
}  # fmt: skip


def unstreamed(name: str) -> str:
    """The case that asks the same without streaming."""
    return name.removesuffix(" streamed")


def compared(name: str, ours: Replies, theirs: Replies) -> set[Difference]:
    return differences(KINDS[name], shape(ours[name].frames), shape(theirs[name].frames))


@pytest.mark.parametrize("name", KINDS)
def test_our_frames_have_the_shape_of_theirs(name, ours, theirs):
    assert undeclared(name, compared(name, ours, theirs)) == set()


def test_every_known_difference_is_still_there(ours, theirs):
    assert unneeded({name: compared(name, ours, theirs) for name in KINDS}) == set()


@pytest.mark.parametrize("name", KINDS)
def test_the_words_for_programs_are_the_same(name, ours, theirs):
    for path in WORDS[KINDS[name]]:
        assert values(ours[name].frames, path) == values(theirs[name].frames, path), path


@pytest.mark.parametrize("name", KINDS)
def test_status_and_media_type_are_the_same(name, ours, theirs):
    assert (ours[name].status, ours[name].media_type) == (theirs[name].status, theirs[name].media_type)


@pytest.mark.parametrize("case", ANSWERED, ids=lambda case: case.name)
def test_what_is_asked_for_is_answered(case, ours, theirs):
    for replies in (ours, theirs):
        assert replies[case.name].status == 200
        assert replies[case.name].streamed is case.streamed


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_what_is_refused_says_why(case, ours, theirs):
    for replies in (ours, theirs):
        assert replies[case.name].status in (400, 404)
        assert values(replies[case.name].frames, "error.message")


@pytest.mark.parametrize("name", STREAMS)
def test_our_streams_tell_the_same_story(name, ours, theirs):
    told = story(ours[name]), story(theirs[name])
    if told[0] == told[1]:
        assert name not in STORIES, "the streams are the same again: the entry can go"
    else:
        assert told == (STORIES[name].ours, STORIES[name].theirs)


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_has_one_id_and_one_time_and_ends_with_done(name, ours, theirs):
    for reply in (ours[name], theirs[name]):
        assert reply.done
        assert [len(values(reply.frames, path)) for path in ("id", "created", "model")] == [1, 1, 1]


@pytest.mark.parametrize("name", KINDS)
def test_our_frames_are_what_openais_package_declares(name, ours):
    found = {(KINDS[name], path) for frame in ours[name].frames for path in faults(KINDS[name], frame)}
    assert found - SDK_GAPS.keys() == set()


def test_every_gap_of_the_package_is_one_for_llama_cpp_too(ours, theirs):
    def gaps(replies: Replies) -> set[tuple[Kind, str]]:
        return {
            (kind, path)
            for name, kind in KINDS.items()
            for frame in replies[name].frames
            for path in faults(kind, frame)
        }

    assert gaps(theirs) & gaps(ours) == SDK_GAPS.keys()


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind in (Kind.CHAT, Kind.COMPLETION)])
def test_usage_adds_up(name, ours, theirs):
    for reply in (ours[name], theirs[name]):
        usage = reply.frames[0]["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0


def test_arguments_of_a_streamed_call_join_to_the_same_json_as_whole(ours, theirs):
    for replies in (ours, theirs):
        calls = replies["chat with a tool"].frames[0]["choices"][0]["message"]["tool_calls"]
        assert [json.loads(call["function"]["arguments"]).keys() for call in calls] == [{"city"}]
        assert json.loads(joined_arguments(replies["chat with a tool streamed"])).keys() == {"city"}


def joined_arguments(reply: Reply) -> str:
    deltas = [frame["choices"][0]["delta"] for frame in reply.frames]
    calls = [call for delta in deltas for call in delta.get("tool_calls", [])]
    assert "id" in calls[0]
    return "".join(call["function"].get("arguments", "") for call in calls)


@pytest.mark.parametrize("name", [name for name in STREAMS if KINDS.get(unstreamed(name)) is Kind.CHAT])
def test_openais_package_joins_a_stream_to_the_answer_as_a_whole(name, ours, theirs):
    (whole,) = ours[unstreamed(name)].frames[0]["choices"]
    (mine,) = joined(ours[name])
    assert mine["finish_reason"] == whole["finish_reason"]
    assert mine.get("logprobs") == whole["logprobs"]
    assert mine["message"].get("reasoning") == whole["message"].get("reasoning")
    # A delta has an empty text where a message has null.
    assert (mine["message"]["content"] or None) == (whole["message"]["content"] or None)
    assert calls_of(mine["message"]) == calls_of(whole["message"])
    (their_own,) = joined(theirs[name])
    assert their_own["finish_reason"] == whole["finish_reason"]


def joined(reply: Reply) -> list[Frame]:
    state = ChatCompletionStreamState()
    for frame in reply.frames:
        state.handle_chunk(ChatCompletionChunk.model_validate(frame))
    choices: list[Frame] = state.current_completion_snapshot.to_dict()["choices"]  # type: ignore[assignment]  # JSON
    return choices


def calls_of(message: Frame) -> list[tuple[str, str, str, str]]:
    return [
        (call["id"], call["type"], call["function"]["name"], call["function"]["arguments"])
        for call in message.get("tool_calls") or []
    ]


def test_base64_holds_the_numbers_of_the_list_in_the_same_format(ours, theirs):
    for replies in (ours, theirs):
        floats = replies["embedding of many texts"].frames[0]["data"]
        encoded = replies["embedding in base64"].frames[0]["data"]
        for vector, text in zip(floats, encoded, strict=True):
            raw = base64.b64decode(text["embedding"], validate=True)
            numbers = struct.unpack(f"<{len(raw) // 4}f", raw)
            assert list(numbers) == pytest.approx(vector["embedding"], abs=1e-6)
