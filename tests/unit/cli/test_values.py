import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.cli.values import parse_duration, parse_timestamp, split_list

NOW_S = 1_795_000_000.7


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", (0, 0)),
        ("3600s", (3600, 0)),
        ("1h30m", (5400, 0)),
        ("1.5h", (5400, 0)),
        ("250ms", (0, 250_000_000)),
        ("30d", (2_592_000, 0)),
        ("2W", (1_209_600, 0)),
        ("0.000000001s", (0, 1)),
    ],
)
def test_span_of_time_is_read_with_its_units(text, expected):
    assert parse_duration(text) == expected


@pytest.mark.parametrize("text", ["", "3600", "-1h", "1h 30m", "h", "1y", "1e3s", "1,5h", "\u0661h", "400000000w"])
def test_span_without_a_known_unit_is_refused(text):
    with pytest.raises(ValueError, match="must be"):
        parse_duration(text)


@given(st.integers(0, 10**9), st.integers(0, 999_999_999))
def test_span_keeps_every_nanosecond(seconds, nanos):
    assert parse_duration(f"{seconds}.{nanos:09d}s") == (seconds, nanos)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2027-01-31T00:00:00Z", (1_801_353_600, 0)),
        ("2027-01-31", (1_801_353_600, 0)),
        ("2027-01-31t01:00:00+01:00", (1_801_353_600, 0)),
        ("2027-01-31 00:00:00.123456789Z", (1_801_353_600, 123_456_789)),
        ("1969-12-31T23:59:59.5Z", (-1, 500_000_000)),
        ("+30d", (1_795_000_000 + 2_592_000, 0)),
        ("+1h30m", (1_795_000_000 + 5400, 0)),
    ],
)
def test_moment_is_read_as_rfc_3339_as_a_date_or_from_now(text, expected):
    assert parse_timestamp(text, NOW_S) == expected


@pytest.mark.parametrize(
    "text", ["", "tomorrow", "2027-01-31T00:00:00", "2027-02-30", "2027-W01-1", "30d", "+", "+9000000d", "+9000y"]
)
def test_moment_that_is_ambiguous_or_impossible_is_refused(text):
    with pytest.raises(ValueError, match=r"must be|is no moment"):
        parse_timestamp(text, NOW_S)


def test_list_is_split_at_commas_and_an_empty_text_is_an_empty_list():
    assert split_list("llama3.2, qwen3:8b,,") == ("llama3.2", "qwen3:8b")
    assert split_list("") == ()
