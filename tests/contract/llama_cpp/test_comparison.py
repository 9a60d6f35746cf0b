"""The comparison itself: it must see what it is there to see."""

from __future__ import annotations

import pytest

from tests.contract.llama_cpp.differences import KNOWN, undeclared, unneeded
from tests.contract.llama_cpp.frames import Frame, FramingError, Reply, read_reply, story
from tests.contract.llama_cpp.server import LlamaCpp
from tests.contract.llama_cpp.shapes import (
    Difference,
    Kind,
    What,
    belongs_to_openai,
    differences,
    faults,
    shape,
    values,
)
from tests.contract.llama_cpp.tiny import MODEL as TINY

MODEL: Frame = {"id": "m", "object": "model", "created": 1, "owned_by": "o"}


def listing(**fields: object) -> Frame:
    return {"object": "list", "data": [MODEL | fields]}


def differing(ours: Frame, theirs: Frame) -> set[tuple[str, What]]:
    found = differences(Kind.MODELS, shape([ours]), shape([theirs]))
    return {(each.path, each.what) for each in found}


def test_equal_frames_do_not_differ():
    assert differing(listing(), listing()) == set()


def test_a_key_of_openai_that_we_lack_is_missing():
    assert differing({"object": "list"}, listing()) == {("data", What.MISSING)}


def test_a_key_of_llama_cpp_alone_is_told_apart_and_only_its_top_is_named():
    found = differing(listing(), listing(meta={"size": 1, "parts": [{"n": 1}]}))
    assert found == {("data[].meta", What.ONLY_THEIRS)}


def test_a_key_of_ours_counts_unless_openai_has_it():
    assert differing(listing(secret=1), listing()) == {("data[].secret", What.ONLY_OURS)}
    assert differing(listing(shutdown_date="2027-01-01"), listing()) == set()


@pytest.mark.parametrize(("ours", "theirs"), [("1", 1), (1.5, 1), (True, 1), ([1], 1), ({"a": 1}, "x")])
def test_another_type_is_seen(ours, theirs):
    assert ("data[].created", What.OTHER_TYPE) in differing(listing(created=ours), listing(created=theirs))


def test_a_whole_number_is_a_number_and_null_is_no_type():
    assert differing(listing(created=1), listing(created=1.5)) == set()
    assert differing(listing(created=1), listing(created=None)) == set()
    assert differing(listing(created=None), listing(created=1)) == {("data[].created", What.ONLY_NULL)}


@pytest.mark.parametrize(
    ("kind", "path", "belongs"),
    [
        (Kind.CHAT, "usage.prompt_tokens_details.cached_tokens", True),
        (Kind.CHAT, "choices[].message.tool_calls[].function.arguments", True),
        (Kind.CHAT_CHUNK, "choices[].delta.tool_calls[].index", True),
        (Kind.COMPLETION, "choices[].logprobs.top_logprobs[].anything", True),
        (Kind.CHAT, "timings", False),
        (Kind.CHAT, "choices[].message.reasoning_content", False),
        (Kind.CHAT, "choices.message", False),
    ],
)
def test_openais_package_says_what_belongs_to_its_api(kind, path, belongs):
    assert belongs_to_openai(kind, path) is belongs


def test_a_frame_that_breaks_the_declared_types_is_found():
    assert faults(Kind.MODELS, listing()) == set()
    assert faults(Kind.MODELS, {"object": "models", "data": [MODEL | {"created": "1"}]}) == {
        "object",
        "data[].created",
    }


def test_values_are_collected_over_frames_and_elements():
    assert values([listing(), {"object": "list", "data": []}], "data[].id") == {"m"}
    assert values([listing()], "data[].nothing") == set()


@pytest.mark.parametrize(
    "body",
    [
        b'data: {"choices":[]}\n\ndata: [DONE]',
        b'data: {"choices":[]}\ndata: [DONE]\n\n',
        b'event: x\ndata: {"choices":[]}\n\n',
        b"data: [DONE]\n\ndata: [DONE]\n\n",
        b"data: {\n\n",
        b"data: []\n\n",
    ],
)
def test_a_stream_of_another_framing_is_refused(body):
    with pytest.raises(FramingError):
        read_reply(200, "text/event-stream", body)


def test_a_whole_answer_is_one_object():
    assert read_reply(200, "application/json; charset=utf-8", b'{"a":1}').frames == ({"a": 1},)
    with pytest.raises(FramingError):
        read_reply(200, "application/json", b"[1]")


def chunk(delta: Frame, *, finish: str | None = None, **more: object) -> Frame:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


def test_a_story_names_what_comes_again_or_out_of_order():
    def told(*frames: Frame) -> list[str]:
        return story(Reply(200, "text/event-stream", frames))

    said = chunk({"content": "a"})
    assert told(chunk({"role": "assistant", "content": None}), said, said) == ["role", "content"]
    assert told(chunk({"role": "assistant", "content": "a"}), said) == ["role", "content"]
    role = chunk({"role": "assistant", "content": "a"})
    assert told(role, role) == ["role", "content", "role", "content"]
    assert told(chunk({}, finish="stop"), said) == ["finish", "content"]
    assert told(chunk({}, finish="stop", usage={"n": 1})) == ["finish", "usage beside a choice"]
    assert told({"choices": [], "usage": {"n": 1}}) == ["usage"]


def test_the_table_admits_a_difference_only_where_it_is_known():
    everywhere = next(known for known, reason in KNOWN.items() if not reason.cases)
    somewhere = next(known for known, reason in KNOWN.items() if reason.cases)
    unheard = Difference(Kind.CHAT, "id", What.MISSING)
    assert undeclared("any", {everywhere, somewhere, unheard}) == {somewhere, unheard}
    assert undeclared(KNOWN[somewhere].cases[0], {somewhere}) == set()


def test_the_table_names_the_entries_that_nothing_needs():
    everything = {name: set(KNOWN) for reason in KNOWN.values() for name in reason.cases}
    assert unneeded(everything) == set()
    gone = next(iter(KNOWN))
    assert {known for known, _ in unneeded({name: found - {gone} for name, found in everything.items()})} == {gone}


def test_a_server_that_does_not_start_says_so(tmp_path, root):
    (tmp_path / f"{TINY}.gguf").mkdir()
    with pytest.raises(RuntimeError, match="did not start"), LlamaCpp(tmp_path, root):
        pass
