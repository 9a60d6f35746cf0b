import contextlib
import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.api import strict_json
from dataplane.api.strict_json import Closed, Dropped, fold, parse
from dataplane.errors import RequestError
from tests.fakes.cost import times_as_long
from tests.unit.api.endpoints import CAPS, ENDPOINTS

SIZE = 262_144


def filled(head: bytes, unit: bytes, tail: bytes) -> bytes:
    return head + unit * ((SIZE - len(head) - len(tail)) // len(unit)) + tail


BROKEN = {
    "empty": b"",
    "not an object": b"[]",
    "a text": b'"x"',
    "truncated": b'{"model":',
    "trailing bytes": b"{} {}",
    "trailing comma": b'{"a":1,}',
    "byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "bad UTF-8": b'{"a":"\xff"}',
    "overlong UTF-8": b'{"a":"\xc0\x80"}',
    "encoded surrogate": b'{"a":"\xed\xa0\x80"}',
    "lone surrogate": b'{"a":"\\ud800"}',
    "lone surrogate in a key": b'{"\\uDC00":1}',
    "reversed surrogates": b'{"a":"\\udc00\\ud800"}',
    "control character": b'{"a":"\x01"}',
    "NaN": b'{"a":NaN}',
    "infinity": b'{"a":-Infinity}',
    "overflow": b'{"a":1e400}',
    "overflow, negative": b'{"a":-1E+400}',
    "huge integer": b'{"a":' + b"9" * 5000 + b"}",
    "integer beyond 64 bits": b'{"a":18446744073709551616}',
    "integer below 64 bits": b'{"a":-9223372036854775809}',
    "endless fraction": b'{"a":0.' + b"1" * 5000 + b"}",
    "leading zero": b'{"a":01}',
    "single quotes": b"{'a':1}",
    "comment": b'{"a":1/**/}',
    "repeated": b'{"a":1,"a":1}',
    "repeated after unescaping": b'{"model":1,"mod\\u0065l":1}',
    "repeated deep inside": b'{"a":[{"b":{"c":1,"c":2}}]}',
    "depth": b'{"a":' + b"[" * 64 + b"]" * 64 + b"}",
    "depth of objects": b'{"a":' * 65 + b"1" + b"}" * 65,
    "endless depth": filled(b'{"a":', b"[", b""),
    "endless depth, closed": b'{"a":' * 30_000 + b"1" + b"}" * 30_000,
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN.keys())
def test_what_is_not_one_plain_object_is_refused_in_our_own_words(body):
    with pytest.raises(RequestError) as refusal:
        parse(body)
    assert refusal.value.message.isascii()
    assert len(refusal.value.message) < 100


@pytest.mark.parametrize(
    "body",
    [
        b" \t\r\n{}\n",
        b'{"a":18446744073709551615,"b":-9223372036854775808}',
        b'{"a":1.7976931348623157e308,"b":1e-400}',
        b'{"a":"\\ud83d\\ude00"}',
        b'{"a":"\\\\ud800"}',
        b'{"\\u0000":null}',
        b'{"a":' + b"[" * 63 + b"]" * 63 + b"}",
        b'{"a":"' + b"{[" * 100 + b'"}',
    ],
)
def test_unusual_but_plain_objects_are_read_as_the_standard_library_reads_them(body):
    assert parse(body) == json.loads(body)


NASTY = {
    "lists": filled(b'{"a":[', b"[],", b"[]]}"),
    "objects": filled(b'{"a":[', b"{},", b"{}]}"),
    "objects with a key": filled(b'{"a":[', b'{"":1},', b"{}]}"),
    "keys": b"{" + b",".join(b'"%d":{}' % number for number in range(20_000)) + b"}",
    "one key": filled(b"{", b'"a":1,', b'"a":1}'),
    "escapes": filled(b'{"a":"', b'\\"', b'"}'),
    "surrogates": filled(b'{"a":"', b"\\ud83d", b'"}'),
    "integers": filled(b'{"a":[', b"1,", b"1]}"),
    "digits": filled(b'{"a":', b"9", b"}"),
    "exponents": filled(b'{"a":[', b"1e300,", b"1]}"),
    "hard floats": filled(b'{"a":[', b"2.2250738585072011e-308,", b"1]}"),
    "long floats": filled(b'{"a":[', b"9007199254740993.000000000000000000001,", b"1]}"),
    "white space": filled(b"", b" ", b"{}"),
    "depth": filled(b"", b'{"a":', b""),
}
# The worst are objects with a key, 4 times what the standard library takes for as many bytes of empty lists: 40 ms
# where that takes 10. msgspec's own reading takes 50 times as long for ``1e300``.
MOST = 8


@pytest.mark.parametrize("body", NASTY.values(), ids=NASTY.keys())
def test_the_nastiest_body_takes_few_times_what_empty_lists_take(body):
    plain = filled(b"[", b"[],", b"[]]")

    def read() -> None:
        with contextlib.suppress(RequestError):
            parse(body)

    assert times_as_long(read, lambda: json.loads(plain), most=MOST) <= MOST


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(
    "body", [*BROKEN.values(), *NASTY.values()], ids=[*BROKEN, *(f"{name}, nasty" for name in NASTY)]
)
def test_every_endpoint_answers_abuse_with_a_request_error(endpoint, body):
    with pytest.raises(RequestError):
        ENDPOINTS[endpoint].parse(body, CAPS)


def test_folding_finds_exactly_what_go_folds_to_ascii():
    folded = {chr(point) for point in range(sys.maxunicode + 1) if fold(chr(point)).isascii()}
    assert folded - {chr(point) for point in range(128)} == {"\u017f", "\u212a"}


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("name", ["MODEL", "Model", "\\u006dODEL", "\u212aeep_alive", "Keep_Alive"])
def test_a_field_in_another_case_is_refused(name, endpoint):
    if endpoint.startswith("/v1"):
        name = name.replace("\u212a", "K")
    body = b'{"model":"llama3","prompt":"hi","input":"hi","messages":[],"%b":1}' % name.encode()
    with pytest.raises(RequestError, match="only in case"):
        ENDPOINTS[endpoint].parse(body, CAPS)


@pytest.mark.parametrize("name", ["me\u017f\u017fages", "\\u017ftream", "option\u017f", "top_logprob\u017f"])
def test_a_field_that_go_folds_to_one_of_ours_is_refused(name):
    body = b'{"model":"llama3","messages":[],"%b":1}' % name.encode()
    with pytest.raises(RequestError, match="only in case"):
        ENDPOINTS["/api/chat"].parse(body, CAPS)


@pytest.mark.parametrize(
    "inner",
    [
        {"options": {"NUM_PREDICT": 1}},
        {"options": {"Num_Ctx": 1}},
        {"messages": [{"role": "user", "Content": "x"}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"Name": "f"}}]}]},
        {"tools": [{"type": "function", "function": {"NAME": "f"}}]},
    ],
)
def test_folding_reaches_the_structs_inside(inner):
    body = json.dumps({"model": "llama3", "messages": [{"role": "user", "content": "x"}], **inner}).encode()
    with pytest.raises(RequestError, match="only in case"):
        ENDPOINTS["/api/chat"].parse(body, CAPS)


def test_free_form_maps_may_hold_keys_that_differ_in_case():
    schema = {"type": "object", "properties": {"Model": {}, "model": {}, "MODEL": {}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    calls = [{"function": {"name": "f", "arguments": {"role": 1, "Role": 2}}}]
    body = {
        "model": "llama3",
        "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": calls}],
        "tools": [tool],
        "format": schema,
    }
    ENDPOINTS["/api/chat"].parse(json.dumps(body).encode(), CAPS)


def test_unknown_fields_are_counted_and_known_ones_named():
    body = {
        "model": "llama3",
        "messages": [{"role": "user", "content": "x", "surprise": 1}],
        "options": {"num_ctx": 1, "wonder": 2, "mirostat": None},
        "keep_alive": -1,
        "raw\n": 1,
    }
    request = ENDPOINTS["/api/chat"].parse(json.dumps(body).encode(), CAPS).request
    assert request.ignored == ("keep_alive", "num_ctx")
    assert request.unknown_fields == 3


def test_wrong_types_name_the_field_and_never_the_value():
    body = b'{"model":"llama3","messages":[{"role":"user","content":{"secret":"nz_canary"}}]}'
    with pytest.raises(RequestError) as refusal:
        ENDPOINTS["/api/chat"].parse(body, CAPS)
    assert refusal.value.param == "messages[0].content"
    assert "canary" not in refusal.value.message
    assert "secret" not in refusal.value.message


@pytest.mark.parametrize("text", ['{"a":1,"a":2}', "[]", "{", '{"a":"\\ud800"}', "{}x"])
def test_a_text_inside_a_body_is_read_as_strictly(text):
    with pytest.raises(RequestError, match="arguments"):
        strict_json.parse_object(text, "arguments")


def test_what_was_dropped_shows_no_client_text():
    dropped = Dropped()
    Closed(type(CAPS), ignored=("raw",)).check({"raw": True, "canary": 1}, dropped)
    assert repr(dropped) == "Dropped(names=('raw',), unknown=1)"


# A reader like Go's: last of the keys that fold to a field wins, objects for one field merge.


def go_read(pairs: Any, fields: dict[str, Any]) -> dict[str, Any]:
    read: dict[str, Any] = {}
    for key, value in pairs:
        name = fold(key)
        if name in fields:
            inner = fields[name]
            if isinstance(value, list) and inner is not None:
                read[name] = {**read.get(name, {}), **go_read(value, inner)}
            else:
                read[name] = value
    return read


FIELDS = {"model": None, "prompt": None, "options": {"num_predict": None, "seed": None}}


def written(pairs: Any) -> str:
    items = (
        f"{json.dumps(key)}:{written(value) if isinstance(value, list) else json.dumps(value)}" for key, value in pairs
    )
    return "{" + ",".join(items) + "}"


def spelled(name: str) -> st.SearchStrategy[str]:
    return st.sampled_from([name, name, name, name.upper(), name.title(), name.replace("s", "\u017f"), "other"])


OPTIONS = st.lists(st.tuples(st.one_of(spelled("num_predict"), spelled("seed")), st.integers(1, 4096)), max_size=3)
BODIES = st.lists(
    st.one_of(
        st.tuples(st.one_of(spelled("model"), spelled("prompt")), st.sampled_from(["llama3", "secret"])),
        st.tuples(spelled("options"), OPTIONS),
    ),
    max_size=5,
)


@given(BODIES)
def test_an_accepted_body_means_the_same_to_a_reader_like_go(pairs):
    try:
        request: Any = ENDPOINTS["/api/generate"].parse(written(pairs).encode(), CAPS).request
    except RequestError:
        return
    read = go_read(pairs, FIELDS)
    assert request.model == read["model"]
    assert request.body.prompt == read["prompt"]
    assert request.num_predict == read.get("options", {}).get("num_predict", 4096)
    seed = read.get("options", {}).get("seed")
    assert (request.body.options.seed or None) == seed
