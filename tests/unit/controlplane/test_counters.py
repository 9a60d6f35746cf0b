"""Which periods count, and what an event adds to their counters."""

import datetime as dt
import uuid

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.counters import charged, owners_of, periods_of, warm_periods
from controlplane.core.usage import UsageEventError, day_of, row_of
from tests.integration.ledger.events import KEY, TENANT, raw


@pytest.mark.parametrize(
    ("moment", "periods"),
    [
        ("2026-11-21T12:00:00", ("20261121", "20261120", "202611", "202610", "total")),
        ("2026-03-01T00:00:00", ("20260301", "20260228", "202603", "202602", "total")),
        ("2028-03-01T00:00:00", ("20280301", "20280229", "202803", "202802", "total")),
        ("2027-01-01T00:00:01", ("20270101", "20261231", "202701", "202612", "total")),
        ("2026-12-31T23:59:59", ("20261231", "20261230", "202612", "202611", "total")),
    ],
)
def test_a_request_may_be_charged_to_this_period_or_the_one_before(moment, periods):
    assert warm_periods(dt.datetime.fromisoformat(moment).replace(tzinfo=dt.UTC)) == periods


@given(st.integers(1_000_000_000, 5_000_000_000), st.integers(0, 86_400))
def test_whatever_was_admitted_within_a_day_is_charged_to_a_warm_period(second, age_s):
    moment = dt.datetime.fromtimestamp(second, dt.UTC)
    admitted = moment - dt.timedelta(seconds=age_s)
    assert set(periods_of(f"{admitted:%Y%m%d}")) <= set(warm_periods(moment))


def test_an_event_is_charged_to_key_and_tenant_by_day_month_and_total():
    row = row_of(raw(5))
    expected = {
        (scope, period): 15 for scope in (f"k:{KEY}", f"t:{TENANT}") for period in ("20261121", "202611", "total")
    }
    assert dict(charged(row)) == expected


def test_a_correction_of_a_tenant_alone_leaves_its_keys_as_they_are():
    row = row_of(raw(5, key_id="", outcome="correction", prompt_tokens=-5, completion_tokens=0))
    assert {scope for (scope, _), tokens in charged(row) if tokens == -5} == {f"t:{TENANT}"}
    assert [owner.key_id for owner in owners_of(row)] == [None]


def test_what_costs_nothing_is_charged_to_nobody():
    assert list(charged(row_of(raw(0, outcome="refused", prompt_tokens=0, completion_tokens=0)))) == []


def test_ids_in_any_spelling_are_one_scope():
    event = msgspec.json.decode(raw(1)) | {"tenant_id": str(uuid.UUID(TENANT)).upper()}
    assert dict(charged(row_of(msgspec.json.encode(event)))) == dict(charged(row_of(raw(1))))


@pytest.mark.parametrize("text", ["", "2026112", "20261131", "yesterday", "202611", "99990101"])
def test_no_day_is_said_so(text):
    with pytest.raises(UsageEventError):
        day_of(text)
