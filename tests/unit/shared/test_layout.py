"""Counters and leases as both planes read them; that the scripts write the same is tested on real servers."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import layout
from shared.keyspace import Period, Scope
from shared.layout import Counter, LayoutError

HEAD = b"\0" * 56
NUMBERS = (150, 75, 1795305570000, 50, 100, 20261121, 202611)


def lease(*numbers: float) -> bytes:
    """As the scripts write it."""
    return b"open " + struct.pack("<7d", *numbers) + b'- k:key t:tenant {"a": "b c"}'


LEASE = lease(*NUMBERS)
TOKENS = st.integers(0, 2**53 - 1)
COUNTERS = st.builds(Counter, TOKENS, TOKENS)


@given(days=st.lists(COUNTERS, max_size=4), months=st.lists(COUNTERS, max_size=4), total=COUNTERS)
def test_of_days_and_of_months_the_two_newest_are_kept(days: list[Counter], months: list[Counter], total: Counter):
    by_day = {Period(f"202611{at + 1:02d}"): counter for at, counter in enumerate(days)}
    by_month = {Period(f"2026{at + 1:02d}"): counter for at, counter in enumerate(months)}
    raw = layout.write_counters({**by_day, layout.TOTAL: total, **by_month}) + HEAD
    kept = {**dict(list(by_day.items())[-2:]), **dict(list(by_month.items())[-2:]), layout.TOTAL: total}
    assert layout.read_counters(raw) == kept


def test_no_string_is_no_counters():
    assert layout.read_counters(None) == {}
    assert layout.read_counters(layout.write_counters({}) + HEAD) == {layout.TOTAL: Counter(0, 0)}


@pytest.mark.parametrize(
    "raw", [b"", layout.write_counters({}), b"\0" * 169, struct.pack("<d", float("nan")) + b"\0" * 160]
)
def test_what_are_no_counters_is_said_so(raw: bytes):
    with pytest.raises(LayoutError):
        layout.read_counters(raw)


def test_an_open_lease_says_everything():
    assert layout.read_lease(LEASE) == layout.OpenLease(
        reserved=150,
        estimate=75,
        admitted_at_ms=1795305570000,
        granted=50,
        prompt_bound=100,
        day="20261121",
        month="202611",
        is_abandoned=False,
        key=Scope("k:key"),
        tenant=Scope("t:tenant"),
        prepared=b'{"a": "b c"}',
    )
    assert layout.read_lease(LEASE.replace(b"- ", b"x ")).is_abandoned


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"settled 1-0",
        b"reaped",
        lease(150, -75, *NUMBERS[2:]),
        lease(math.nan, *NUMBERS[1:]),
        lease(1.5, *NUMBERS[1:]),
        LEASE[:60],
        LEASE[:70],
    ],
)
def test_what_is_no_open_lease_is_said_so(raw: bytes):
    with pytest.raises(LayoutError):
        layout.read_lease(raw)


@pytest.mark.parametrize(
    ("raw", "state"), [(LEASE, "open"), (b"settled 1-0", "settled"), (b"reaped", "reaped"), (None, ""), (b"\xff", "�")]
)
def test_the_first_word_is_the_state(raw: bytes | None, state: str):
    assert layout.state_of(raw) == state


def test_another_layout_is_another_incarnation():
    assert layout.incarnation("run", "replication") == f"{layout.VERSION}:run:replication:"
