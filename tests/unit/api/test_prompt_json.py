import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dataplane.api.prompt_json import most_bytes
from tests.fuzz import go_writing
from tests.unit.api.endpoints import MESSAGES, parse

# Around the places from which on Go and we write exponents.
EDGES = (
    1e15,
    1e16,
    1e20,
    9.999999999999999e20,
    1e21,
    1.5e300,
    1e-5,
    1e-6,
    9.5e-7,
    1e-7,
    5e-324,
    -1e20,
    2**53,
    2**64 - 1,
)
LEAF = st.one_of(
    st.none(),
    st.booleans(),
    st.text(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(EDGES),
)
ANY_JSON = st.recursive(
    LEAF,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)
LAYOUTS = (go_writing.written, go_writing.spaced, go_writing.indented)


@given(ANY_JSON)
@example([1e20] * 40)
@example([99999999999999999] * 40)
@example([[[[[[1, 1, 1]]]]]])
@example({"<>&\u2028": ['\u2029\x00\x7f"\\']})
def test_no_layout_of_go_is_longer_than_the_bound(value):
    most = most_bytes(msgspec.json.encode(value))
    for write in LAYOUTS:
        assert len(write(value).encode()) <= most


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_the_model_of_go_writes_numbers_that_mean_the_same(value):
    assert float(go_writing.number(value)) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (1e-6, "0.000001"),
        (1e-7, "1e-7"),
        (1e-10, "1e-10"),
        (123456789.5, "123456789.5"),
        (100.0, "100"),
        (-0.0, "-0"),
        (18446744073709551615, "18446744073709552000"),
    ],
)
def test_the_model_of_go_spells_numbers_as_go_does(value, text):
    assert go_writing.number(value) == text


def test_the_model_of_go_lays_out_and_escapes_as_go_does():
    value = {"a<": [1, {"b": "\x00\n&"}], "c": [], "d": {}}
    assert go_writing.written(value) == '{"a\\u003c":[1,{"b":"\\u0000\\n\\u0026"}],"c":[],"d":{}}'
    assert go_writing.spaced(value) == '{"a\\u003c": [1, {"b": "\\u0000\\n\\u0026"}], "c": [], "d": {}}'
    assert go_writing.indented([1, {"a": 2}]) == json.dumps([1, {"a": 2}], indent=4)


def test_an_ordinary_tool_is_not_reserved_beyond_reason():
    parameters = {"type": "object", "properties": {"city": {"type": "string", "description": "where"}}}
    raw = json.dumps(parameters, separators=(",", ":")).encode()
    assert len(raw) < most_bytes(raw) < 5 * len(raw)


@pytest.mark.parametrize("endpoint", ["/api/chat", "/v1/chat/completions"])
def test_numbers_of_tools_and_arguments_are_counted_as_go_writes_them(endpoint):
    def reserved(number: float) -> int:
        tools = [{"function": {"name": "f", "parameters": {"enum": [number] * 100}}}]
        arguments: Any = {"a": [number] * 100}
        arguments = arguments if endpoint == "/api/chat" else json.dumps(arguments)
        call = {"function": {"name": "f", "arguments": arguments}}
        messages = [*MESSAGES, {"role": "assistant", "content": "", "tool_calls": [call]}]
        return parse(endpoint, tools=tools, messages=messages).request.prompt_bytes

    assert reserved(1e20) - reserved(1e2) >= 200 * (len("100000000000000000000") - len("100.0"))
