"""The decoder reads bodies as Go's encoding/json does."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.mock_ollama import wire
from deploy.mock_ollama.go_json import EmptyBodyError, GoJSONError, fold, parse
from deploy.mock_ollama.go_types import decode


def chat(raw: str | bytes) -> dict[str, object]:
    return decode(raw.encode() if isinstance(raw, str) else raw, wire.CHAT)


def test_the_last_of_equal_keys_wins_whatever_their_case():
    assert chat('{"model":"allowed","MODEL":"secret"}') == {"model": "secret"}
    assert chat('{"MODEL":"secret","model":"allowed"}') == {"model": "allowed"}


def test_long_s_and_kelvin_sign_fold_to_ascii_letters():
    assert chat('{"me\u017f\u017fage\u017f":[],"\u212aeep_alive":0}') == {"messages": [], "keep_alive": 0.0}
    assert fold("\u017fTREAM") == "stream"


def test_other_letters_do_not_fold():
    assert chat('{"modèl":"x","\uff4dodel":"y"}') == {}


def test_repeated_options_merge_with_exact_keys():
    body = chat('{"options":{"num_ctx":262144,"seed":1},"OPTIONS":{"seed":2,"NUM_CTX":1}}')
    assert body == {"options": {"num_ctx": 262144, "seed": 2, "NUM_CTX": 1}}


def test_repeated_tools_are_read_over_but_messages_are_replaced():
    body = chat(
        '{"tools":[{"type":"function","function":{"name":"a"}}],"tools":[{"function":{"description":"d"}}],'
        '"messages":[{"role":"user","content":"a"}],"messages":[{"role":"user"}]}'
    )
    assert body["tools"] == [{"type": "function", "function": {"name": "a", "description": "d"}}]
    assert body["messages"] == [{"role": "user"}]


def test_null_empties_pointers_and_leaves_plain_fields():
    assert chat('{"model":"a","model":null,"stream":false,"stream":null,"options":{"seed":1},"options":null}') == {
        "model": "a"
    }


def test_what_follows_the_first_value_is_ignored():
    assert chat('{"model":"a"} {"model":"b"} trailing') == {"model": "a"}


@pytest.mark.parametrize("raw", [b"", b" \r\n\t"])
def test_an_empty_body_is_told_apart(raw):
    with pytest.raises(EmptyBodyError):
        parse(raw)


@pytest.mark.parametrize(
    "raw",
    ['{"model":', "{'model':1}", '{"model":NaN}', '{"a":Infinity}', '{"a":01}', '{"a":"\t"}', "\ufeff{}", '{"a":1,}'],
)
def test_what_is_no_json_is_refused(raw):
    with pytest.raises(GoJSONError):
        chat(raw)


def test_nesting_without_end_is_refused():
    with pytest.raises(GoJSONError, match=r"max depth|unexpected"):
        parse(b"[" * 200_000)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ('{"stream":"yes"}', "json: cannot unmarshal string into Go struct field ChatRequest.stream of type bool"),
        ('{"top_logprobs":1.5}', "json: cannot unmarshal number 1.5 into Go struct field ChatRequest.top_logprobs"),
        ('{"options":[]}', r"json: cannot unmarshal array into Go struct field ChatRequest.options of type map"),
        ('{"tools":[{"function":{"name":1}}]}', "Go struct field ToolFunction.tools.function.name of type string"),
        ('{"think":"hard"}', 'invalid think value: "hard"'),
        ('{"keep_alive":"soon"}', 'time: invalid duration "soon"'),
        ('{"messages":[{"images":["%%%%"]}]}', "illegal base64 data at input byte 0"),
        ('{"messages":[{"images":["data:image/png;base64,AAAA"]}]}', "illegal base64 data at input byte 4"),
        ("[]", "json: cannot unmarshal array into Go value of type api.ChatRequest"),
    ],
)
def test_a_wrong_type_is_refused_with_the_words_of_go(raw, message):
    with pytest.raises(GoJSONError) as caught:
        chat(raw)
    assert message in str(caught.value)


def test_the_first_type_fault_is_told_after_the_whole_body_was_read():
    with pytest.raises(GoJSONError, match="model"):
        chat('{"model":1,"stream":"x"}')


def test_bytes_that_are_not_utf8_and_lone_surrogates_become_replacement_characters():
    assert chat(b'{"model":"a\xe2\x82b\xff"}') == {"model": "a\ufffd\ufffdb\ufffd"}
    assert chat('{"model":"\\ud800x\\udc00\\ud83d\\ude00\\\\ud800"}') == {"model": "\ufffdx\ufffd😀\\ud800"}


@pytest.mark.parametrize(
    ("text", "seconds"), [('"5m"', 300.0), ('"1h30m"', 5400.0), ("0", 0.0), ('"-1s"', math.inf), ("-1", math.inf)]
)
def test_keep_alive_is_read_as_seconds_or_duration(text, seconds):
    assert chat(f'{{"keep_alive":{text}}}') == {"keep_alive": seconds}


def test_integers_beyond_float_precision_stay_exact_where_go_reads_an_int():
    body = decode(b'{"context":[9007199254740993],"options":{"seed":9007199254740993}}', wire.GENERATE)
    assert body["context"] == [9007199254740993]
    assert body["options"] == {"seed": 9007199254740992.0}


@given(st.binary(max_size=64))
def test_no_bytes_at_all_break_the_decoder(raw):
    try:
        decode(raw, wire.CHAT)
    except GoJSONError:
        return


@given(st.dictionaries(st.text(), st.recursive(st.none() | st.booleans() | st.text(), st.lists, max_leaves=6)))
def test_plain_documents_are_read_as_python_reads_them(document):
    import json

    text = json.dumps(document)
    assert parse(text.encode()) == json.loads(text.encode("utf-8", "replace"))
