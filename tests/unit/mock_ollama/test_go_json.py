"""The decoder reads bodies as Go's encoding/json does."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.mock_ollama import wire
from deploy.mock_ollama.go_json import EmptyBodyError, GoJSONError, fold, parse
from deploy.mock_ollama.go_types import decode


def chat(raw: str | bytes) -> dict[str, Any]:
    return decode(raw.encode() if isinstance(raw, str) else raw, wire.CHAT)


def test_the_last_of_equal_keys_wins_whatever_their_case():
    assert chat('{"model":"allowed","MODEL":"secret"}') == {"model": "secret"}
    assert chat('{"MODEL":"secret","model":"allowed"}') == {"model": "allowed"}


def test_long_s_and_kelvin_sign_fold_to_ascii_letters():
    assert chat('{"me\u017f\u017fage\u017f":[],"\u212aeep_alive":0}') == {"messages": [], "keep_alive": 0.0}
    assert fold("\u017fTREAM") == "stream"


def test_other_letters_do_not_fold():
    assert chat('{"modèl":"x","\uff4dodel":"y","m\u0131n_p":1,"mode\u0142":"z"}') == {}


def test_a_key_is_unescaped_before_it_is_matched():
    assert chat('{"\\u006dode\\u006c":"a","\\u212aEEP_ALIVE":0}') == {"model": "a", "keep_alive": 0.0}


def test_a_key_with_bytes_that_are_no_utf8_matches_nothing():
    assert chat(b'{"mo\xffdel":"a","model\xff":"b"}') == {}
    assert decode(b'{"options":{"a\xff":1}}', wire.CHAT) == {"options": {"a\ufffd": 1}}


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


def test_a_longer_array_shows_elements_again_that_a_shorter_one_has_hidden():
    raw = (
        '{"tools":[{"type":"a"},{"type":"b","function":{"name":"hidden"}}],"tools":[{"type":"c"}],'
        '"TOOLS":[{},{"function":{"description":"d"}}]}'
    )
    assert chat(raw)["tools"] == [{"type": "c"}, {"type": "b", "function": {"name": "hidden", "description": "d"}}]


def test_an_empty_array_and_null_forget_the_elements_before():
    for between in ("[]", "null"):
        body = chat(f'{{"tools":[{{"type":"a"}}],"tools":{between},"tools":[{{"items":1}}]}}')
        assert body["tools"] == [{"items": 1}]


def test_repeated_structs_merge_at_any_depth_and_raw_values_are_replaced():
    body = chat(
        '{"tools":[{"function":{"name":"a","parameters":{"type":"object"}},"Function":{"parameters":{"required":["x"]}}}],'
        '"format":{"type":"object"},"FORMAT":{"x":1}}'
    )
    assert body["tools"] == [{"function": {"name": "a", "parameters": {"type": "object", "required": ["x"]}}}]
    assert body["format"] == {"x": 1}


def test_null_elements_are_zero_values():
    body = decode(b'{"context":[1,null],"images":[null,[1,null,255]]}', wire.GENERATE)
    assert body == {"context": [1, 0], "images": [None, b"\x01\x00\xff"]}
    assert chat('{"messages":[null],"tools":[null]}') == {"messages": [{}], "tools": [{}]}


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
    assert chat(b'{"model":"\xed\xa0\x80\xc0\x80\xf4\x90\x80\x80"}') == {"model": "\ufffd" * 9}
    assert chat('{"model":"\\ud800\\ud800\\udc00"}') == {"model": "\ufffd\U00010000"}
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


@pytest.mark.parametrize(
    ("literal", "value"),
    [
        ("0", 0), ("-0", 0), ("9223372036854775807", 2**63 - 1), ("-9223372036854775808", -(2**63)),
        ("1.0", None), ("1e2", None), ("4096.9", None), ("9223372036854775808", None), ("-9223372036854775809", None),
        ("true", None), ('"1"', None), ("[1]", None), ("1" * 400, None), ("1" * 5000, None), ("1e400", None),
    ],
)  # fmt: skip
def test_an_int_takes_integer_literals_of_64_bits_and_nothing_else(literal, value):
    raw = f'{{"top_logprobs":{literal}}}'
    if value is None:
        with pytest.raises(GoJSONError, match=r"into Go struct field ChatRequest.top_logprobs of type int"):
            chat(raw)
    else:
        assert chat(raw).get("top_logprobs") == value


def test_a_number_that_float64_cannot_hold_is_a_fault_only_where_it_is_stored():
    huge = "9" * 400
    for literal in ("1e400", "-1E+400", huge, "9" * 5000):
        assert chat(f'{{"unknown":[{literal}],"model":"a"}}') == {"model": "a"}
        for raw in (f'{{"options":{{"seed":{literal}}}}}', f'{{"tools":[{{"items":[{{"a":{literal}}}]}}]}}'):
            with pytest.raises(GoJSONError, match=r"json: cannot unmarshal number .* of type float64"):
                chat(raw)
    assert chat('{"options":{"seed":1e-400,"top_p":1.7976931348623157e308}}')["options"] == {
        "seed": 0.0,
        "top_p": 1.7976931348623157e308,
    }


def test_text_that_is_not_base64_is_told_after_the_whole_body_was_read():
    with pytest.raises(GoJSONError, match="base64"):
        decode(b'{"images":["%"],"model":1}', wire.GENERATE)
    with pytest.raises(GoJSONError, match="model"):
        decode(b'{"model":1,"images":["%"]}', wire.GENERATE)


def test_the_schema_of_a_tool_is_a_struct_and_its_properties_are_exact():
    (tool,) = chat('{"tools":[{"function":{"PARAMETERS":{"Type":"object","properties":{"A":{"TYPE":"x"},"a":{}}}}}]}')[
        "tools"
    ]
    assert tool["function"]["parameters"]["type"] == "object"
    assert tool["function"]["parameters"]["properties"]["A"]["type"] == ["x"]
    for schema in ('{"type":5}', '{"properties":[]}', '{"properties":{"a":{"type":5}}}', '{"required":"a"}'):
        with pytest.raises(GoJSONError):
            chat(f'{{"tools":[{{"function":{{"parameters":{schema}}}}}]}}')


def test_arguments_are_an_object_whose_last_key_wins():
    (message,) = chat('{"messages":[{"tool_calls":[{"function":{"arguments":{"a":1,"A":2,"a":{"b":3}}}}]}]}')[
        "messages"
    ]
    assert message["tool_calls"][0]["function"]["arguments"] == {"a": {"b": 3}, "A": 2}
    with pytest.raises(GoJSONError):
        chat('{"messages":[{"tool_calls":[{"function":{"arguments":"{}"}}]}]}')


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
