from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.ollama import answers
from controlplane.ollama.answers import AnswerError, Details, Listing
from controlplane.ollama.client import MAX_SHOW_BYTES
from tests.fakes.cost import times_as_long


def listing(*entries: Any) -> Listing:
    return answers.listing(json.dumps({"models": entries}).encode())


def names(found: Listing) -> list[str]:
    return [model.name for model in found.models]


def test_a_model_is_read_with_its_metadata_and_in_its_own_spelling():
    found = listing(
        {
            "name": "Qwen3:8B",
            "model": "qwen3:8b",
            "digest": "ab" * 32,
            "size": 5,
            "modified_at": "2026-08-21T18:48:22.123456789+02:00",
            "details": {
                "family": "qwen3",
                "families": ["qwen3"],
                "format": "gguf",
                "parameter_size": "8.2B",
                "quantization_level": "Q4_K_M",
            },
        }
    )
    (model,) = found.models
    assert (model.name, model.canonical) == ("Qwen3:8B", "registry.ollama.ai/library/qwen3:8b")
    assert (model.digest, model.size_bytes, model.family, model.families) == ("ab" * 32, 5, "qwen3", ("qwen3",))
    assert (model.format, model.parameter_size, model.quantization) == ("gguf", "8.2B", "Q4_K_M")
    assert model.modified_at == "2026-08-21T18:48:22.123456789+02:00"


@pytest.mark.parametrize(
    "entry",
    [
        {"name": "gpt-oss:120b-cloud"},
        {"name": "gpt-oss:cloud"},
        {"name": "llama3:local"},
        {"name": "far", "remote_host": "https://ollama.com:443"},
        {"name": "far", "remote_model": "gpt-oss"},
        {"name": "one", "model": "two"},
        {"name": " llama3"},
        {"name": "https://registry.ollama.ai/library/llama3"},
        {"name": "../../etc/passwd"},
        {"name": "a b"},
        {"name": "a\nb"},
        {"name": "ä"},
        {"name": "a\u202eb"},
        {"name": ""},
        {"name": "x" * 300},
        {"name": None},
        {"name": 5},
        {"name": ["llama3"]},
        {},
        [],
        None,
        "llama3",
    ],
)
def test_entries_without_a_usable_local_name_are_left_out_and_counted(entry):
    found = listing({"name": "llama3"}, entry)
    assert names(found) == ["llama3"]
    assert found.skipped == 1


def test_of_two_spellings_of_one_model_the_first_is_kept():
    found = listing({"name": "LLAMA3"}, {"name": "llama3:latest"}, {"name": "library/llama3"})
    assert names(found) == ["LLAMA3"]
    assert found.skipped == 2


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"<html>",
        b"[]",
        b"null",
        b"{}",
        b'{"models": {}}',
        b'{"models": "x"}',
        b'{"models": 5}',
        b'{"models": []} trailing',
        b'\xef\xbb\xbf{"models": []}',
        b'{"models": [{"name": "\xff"}]}',
        b'{"models": [{"name": "\\ud800"}]}',
        b"[" * 500_000,
        b'{"models": ' + b"[" * 500_000,
        b'{"models": [{"size": NaN}]}',
    ],
)
def test_what_is_no_list_of_models_is_no_answer(raw):
    with pytest.raises(AnswerError):
        answers.listing(raw)


def test_no_models_is_an_answer():
    assert answers.listing(b'{"models": []}') == answers.listing(b'{"models": null}') == Listing()


def test_more_than_a_thousand_entries_are_refused():
    assert len(listing(*({"name": f"m{n}"} for n in range(1000))).models) == 1000
    with pytest.raises(AnswerError, match="too many"):
        listing(*({"name": f"m{n}"} for n in range(1001)))


def test_odd_metadata_is_left_out_and_the_model_kept():
    found = listing(
        {
            "name": "llama3",
            "digest": {"a": 1},
            "size": -5,
            "modified_at": "yesterday",
            "details": {"family": "x" * 101, "families": None, "format": "a\x1b[31mb", "parameter_size": 8},
        },
        {"name": "b", "details": [], "size": True, "digest": "z" * 64},
        {"name": "c", "size": 2**60, "details": {"families": ["ok", 5, "x" * 200] + ["y"] * 50}},
    )
    first, second, third = found.models
    assert (first.digest, first.size_bytes, first.modified_at, first.family, first.format) == ("", 0, "", "", "")
    assert (second.size_bytes, second.digest) == (0, "")
    assert third.families[:2] == ("ok", "y")
    assert len(third.families) <= answers.MAX_FAMILIES


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=20,
)
_ENTRIES = st.lists(
    _JSON
    | st.fixed_dictionaries(
        {"name": st.text(max_size=20)},
        optional=dict.fromkeys(("model", "size", "digest", "modified_at", "details", "remote_host"), _JSON),
    ),
    max_size=6,
)


@given(_ENTRIES)
def test_any_json_gives_usable_models_or_none(entries):
    found = listing(*entries)
    assert len(found.models) + found.skipped == len(entries)
    for model in found.models:
        assert model.name.isascii()
        assert model.size_bytes >= 0
        assert len(model.family) <= answers.MAX_TEXT_LENGTH


def test_a_description_tells_capabilities_lengths_and_the_bytes_that_are_added_to_prompts():
    raw = json.dumps(
        {
            "capabilities": ["completion", "thinking"],
            "template": "{{ .Prompt }}",
            "system": "Gruß",
            "messages": [{"role": "user", "content": "hé"}, "x"],
            "model_info": {
                "general.architecture": "qwen3",
                "qwen3.context_length": 40960,
                "qwen3.embedding_length": 4096,
                "tokenizer.ggml.tokens": None,
            },
        }
    ).encode()
    assert answers.details(raw) == Details(
        capabilities=("completion", "thinking"), context_length=40960, embedding_length=4096, template_bytes=13 + 5 + 7
    )


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"capabilities": "completion", "model_info": [], "template": 5, "system": None, "messages": {}},
        {"model_info": {"general.architecture": 5, "5.context_length": 7}},
        {"model_info": {"general.architecture": "a", "a.context_length": -1, "a.embedding_length": 1.5}},
        {"model_info": {"general.architecture": "a", "a.context_length": 2**40, "a.embedding_length": True}},
    ],
)
def test_a_description_that_says_nothing_usable_is_an_empty_one(answer):
    assert answers.details(json.dumps(answer).encode()) == Details()


# An eighth of the longest description that is read.
NASTY_BYTES = MAX_SHOW_BYTES // 8
# The worst takes as long as the standard library takes for as many bytes of empty lists, and half of that again;
# msgspec's own reading takes 50 times as long for ``1e300``, and 8 times for the other one.
MOST = 5


def full_of(unit: bytes, head: bytes, tail: bytes) -> bytes:
    return head + unit * (NASTY_BYTES // len(unit)) + tail


UNITS = (
    b"1e300,", b"2.2250738585072011e-308,", b"1e400,", b"1,", b"[],", b'{"a":1},', b'"\\ud83d\\ude00",',
    b"18446744073709551616,", b"9" * 4000 + b",", b'{"name":"llama3:cloud"},',
)  # fmt: skip


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit[:24].decode())
def test_no_answer_holds_up_the_process_however_nasty_its_values(unit):
    answered = (
        (answers.listing, full_of(unit, b'{"models":[', b"1]}")),
        (answers.listing, full_of(unit, b'{"models":[{"name":"a","size":[', b"1]}]}")),
        (answers.details, full_of(unit, b'{"capabilities":[', b"1]}")),
        (answers.details, full_of(unit, b'{"model_info":{"a.context_length":[', b"1]}}")),
    )
    plain = full_of(b"[],", b"[", b"1]")
    for read, raw in answered:

        def judge(read: Callable[[bytes], object] = read, raw: bytes = raw) -> None:
            with contextlib.suppress(AnswerError):
                read(raw)

        assert times_as_long(judge, lambda: json.loads(plain), most=MOST) <= MOST


def test_numbers_beyond_all_bounds_say_nothing():
    for literal in ("1e400", "-1e400", "9" * 30, "4096.5", "4096.0", "1e3", "true", "-1"):
        raw = f'{{"model_info":{{"general.architecture":"a","a.context_length":{literal}}},"template":"x"}}'.encode()
        assert answers.details(raw) == Details(template_bytes=1)
    model = answers.listing(b'{"models":[{"name":"a","size":1e400,"details":{"family":1e400}}]}').models[0]
    assert (model.size_bytes, model.family) == (0, "")


def test_keys_in_another_case_are_not_read():
    raw = b'{"Models":[{"name":"a"}],"models":[{"Name":"b"},{"name":"c","Digest":"0"}]}'
    assert names(answers.listing(raw)) == ["c"]


def test_of_repeated_keys_the_last_is_read():
    assert names(answers.listing(b'{"models":[{"name":"a"}],"models":[{"name":"b"}]}')) == ["b"]
    assert answers.listing(b'{"models":[{"name":"a","remote_host":"","remote_host":"x"}]}').skipped == 1


@given(st.binary(max_size=64))
def test_no_bytes_break_the_reading(raw):
    for read in (answers.listing, answers.details):
        with contextlib.suppress(AnswerError):
            read(raw)


@pytest.mark.parametrize("raw", [b"", b"[]", b"5", b"[" * 500_000, b'{"template": "\xff"}'])
def test_what_is_no_object_is_no_description(raw):
    with pytest.raises(AnswerError):
        answers.details(raw)
