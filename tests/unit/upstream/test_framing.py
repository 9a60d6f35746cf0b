"""Cutting chunks into lines."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.upstream.framing import FramingError, LineSplitter

lines = st.lists(st.binary(min_size=1, max_size=40).filter(lambda line: b"\n" not in line and bool(line.strip())))


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@given(lines, st.lists(st.integers(min_value=0)))
def test_lines_are_the_same_however_the_stream_is_cut(expected, places):
    splitter = LineSplitter()
    found = [
        line for chunk in cut(b"".join(line + b"\n" for line in expected), places) for line in splitter.feed(chunk)
    ]
    assert found == expected
    splitter.finish()


def test_lines_come_out_of_a_stream_of_single_bytes():
    splitter = LineSplitter()
    found = [line for byte in b'{"a":1}\n\n{"b":2}\n' for line in splitter.feed(bytes([byte]))]
    assert found == [b'{"a":1}', b'{"b":2}']


def test_a_line_that_does_not_end_is_a_fault_at_the_end():
    splitter = LineSplitter()
    assert splitter.feed(b'{"a":1}\n{"b"') == [b'{"a":1}']
    with pytest.raises(FramingError, match="ends within"):
        splitter.finish()


@pytest.mark.parametrize(
    "chunks",
    [
        [b"x" * 11],
        [b"x" * 11 + b"\n"],
        [b"x" * 6, b"x" * 6],
        [b"x" * 6, b"x" * 6 + b"\n"],
        [b"a\n" + b"x" * 11 + b"\nb\n"],
        [b"a\n" + b"x" * 11],
    ],
)
def test_a_record_over_its_cap_is_refused_wherever_it_is_cut(chunks):
    splitter = LineSplitter(max_record_bytes=10)
    with pytest.raises(FramingError, match="record"):
        for chunk in chunks:
            splitter.feed(chunk)


def test_a_record_of_exactly_the_cap_is_accepted():
    splitter = LineSplitter(max_record_bytes=10)
    assert splitter.feed(b"x" * 10 + b"\n") == [b"x" * 10]
    assert splitter.feed(b"y" * 5) == []
    assert splitter.feed(b"y" * 5 + b"\nz\n") == [b"y" * 10, b"z"]


def test_a_reply_over_its_cap_is_refused():
    splitter = LineSplitter(max_reply_bytes=10)
    splitter.feed(b"12345678\n")
    with pytest.raises(FramingError, match="reply"):
        splitter.feed(b"1\n")
