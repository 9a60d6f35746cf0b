"""What a correction may be, and the usage event that it is."""

from __future__ import annotations

import datetime as dt
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core import corrections
from controlplane.core.corrections import CORRECTABLE_DAYS, Correction
from controlplane.core.limits import MAX_LIMIT
from controlplane.core.usage import row_of
from controlplane.errors import InvalidRequestError
from shared import records
from shared.keyspace import KeyId, TenantId

TODAY = dt.date(2026, 11, 21)
AT = dt.datetime(2026, 11, 21, 10, 0, 0, 123_000, tzinfo=dt.UTC)


def correction(*, tokens: int = -5000, key: bool = True, day: dt.date = TODAY, reason: str = "failed") -> Correction:
    return Correction(
        id="ticket-4711",
        tenant_id=TenantId(str(uuid.UUID(int=1))),
        key_id=KeyId(str(uuid.UUID(int=2))) if key else None,
        tokens=tokens,
        day=day,
        reason=reason,
        operator="olga",
    )


@given(st.integers(-MAX_LIMIT, MAX_LIMIT).filter(bool), st.booleans(), st.text(min_size=1, max_size=50))
def test_the_ledger_takes_every_correction_as_it_is(tokens, key, reason):
    made = correction(tokens=tokens, key=key, reason=reason)
    row = row_of(records.encode(made.event(AT)))
    assert row.event.prompt_tokens + row.event.completion_tokens == tokens
    assert (row.event.outcome, row.event.reason, row.event.operator) == ("correction", reason, "olga")
    assert row.created_at == AT
    assert row.day == TODAY
    assert row.key_id == (uuid.UUID(int=2) if key else None)


def test_fingerprints_differ_where_corrections_do():
    others = [
        correction(tokens=-4999),
        correction(key=False),
        correction(day=TODAY - dt.timedelta(days=1)),
    ]
    fingerprints = {made.fingerprint for made in (correction(), correction(reason="put differently"), *others)}
    assert len(fingerprints) == 1 + len(others)


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"tokens": 0}, "tokens must be from"),
        ({"tokens": MAX_LIMIT + 1}, "tokens must be from"),
        ({"reason": ""}, "reason must have 1 to 500 printable characters"),
        ({"reason": "   "}, "reason must have"),
        ({"reason": "x" * 501}, "reason must have"),
        ({"reason": "bell\a"}, "reason must have"),
        ({"correction_id": "short"}, "correction_id must have 8 to 64"),
        ({"correction_id": "with space"}, "correction_id must have 8 to 64"),
    ],
)
def test_field_that_breaks_its_rule_is_named(fields, fault):
    (found,) = corrections.correction_faults(**{"tokens": 1, "reason": "why", "correction_id": ""} | fields)
    assert found.startswith(fault)


def test_a_sound_correction_has_no_faults():
    assert corrections.correction_faults(tokens=-1, reason="why", correction_id="ticket_4711") == []


def test_the_corrected_day_is_today_or_one_of_the_days_before():
    oldest = TODAY - dt.timedelta(days=CORRECTABLE_DAYS)
    assert corrections.corrected_day("", today=TODAY) == TODAY
    assert corrections.corrected_day("2026-11-20", today=TODAY) == dt.date(2026, 11, 20)
    assert corrections.corrected_day(f"{oldest:%Y%m%d}", today=TODAY) == oldest
    for period in ("20261122", f"{oldest - dt.timedelta(days=1):%Y%m%d}"):
        with pytest.raises(InvalidRequestError, match="one of the 62 days before"):
            corrections.corrected_day(period, today=TODAY)
    for period in ("202611", "total", "20261131", "today"):
        with pytest.raises(InvalidRequestError, match="period must be a day such as 20261121"):
            corrections.corrected_day(period, today=TODAY)
