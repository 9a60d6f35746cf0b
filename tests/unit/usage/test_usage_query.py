"""Which days a query means, what answers it, and what a budget amounts to."""

from __future__ import annotations

import datetime as dt
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core import usage_query
from controlplane.core.keys import Key
from controlplane.core.tenants import Tenant
from controlplane.core.usage_query import By, DayRange, Periods, Spent
from controlplane.errors import InvalidRequestError
from shared import keyspace
from shared.keyspace import KeyId, Period, TenantId
from shared.layout import Counter
from shared.records import LimitsRecord

TODAY = dt.date(2026, 11, 21)
NOW = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
days = st.dates(dt.date(2000, 1, 1), dt.date(2199, 12, 30))


def a_tenant(**limits: int) -> Tenant:
    return Tenant(id=TenantId(str(uuid.UUID(int=1))), name="acme", created_at=NOW, limits=LimitsRecord(**limits))


def a_key(**limits: int) -> Key:
    return Key(
        id=KeyId(str(uuid.UUID(int=2))),
        tenant_id=TenantId(str(uuid.UUID(int=1))),
        tenant="acme",
        prefix="nz_000000001",
        name="prod",
        created_at=NOW,
        limits=LimitsRecord(**limits),
    )


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        ("", "", (dt.date(2026, 11, 1), TODAY)),
        ("2026-10", "2026-10", (dt.date(2026, 10, 1), dt.date(2026, 10, 31))),
        ("202610", "20261103", (dt.date(2026, 10, 1), dt.date(2026, 11, 3))),
        ("2024-02-01", "2024-02", (dt.date(2024, 2, 1), dt.date(2024, 2, 29))),
        ("2026-11-21", "2026-11-21", (TODAY, TODAY)),
        ("2025-12", "2026-12", (dt.date(2025, 12, 1), dt.date(2026, 12, 31))),
    ],
)
def test_days_and_months_name_a_range_with_its_last_day(first, last, expected):
    found = usage_query.day_range(first, last, today=TODAY)
    assert (found.first, found.last) == expected


@pytest.mark.parametrize(
    ("first", "last", "fault"),
    [
        ("yesterday", "", "from must be a day such as 2026-11-21 or a month such as 2026-11"),
        ("", "2026-13", "to must be a day"),
        ("2026-02-30", "", "from must be a day"),
        ("2026-1121", "", "from must be a day"),
        ("1999-12-31", "", "from must be a day"),
        ("٢٠٢٦-11", "", "from must be a day"),
        ("2026-11-21", "2026-11-20", "to must not be before from"),
        ("2022-01", "", "from must be at most 1100 days before to"),
    ],
)
def test_range_that_breaks_a_rule_is_refused_with_field_and_rule(first, last, fault):
    with pytest.raises(InvalidRequestError, match=fault):
        usage_query.day_range(first, last, today=TODAY)


def test_every_fault_of_a_range_is_named_at_once():
    with pytest.raises(InvalidRequestError) as refused:
        usage_query.day_range("x", "y", today=TODAY)
    assert len(refused.value.faults) == 2


def test_recent_ranges_are_read_from_the_audit_log_and_older_ones_from_the_sums():
    kept_from = dt.date(2026, 1, 1)
    recent = DayRange(first=dt.date(2026, 9, 1), last=TODAY)
    long = DayRange(first=dt.date(2026, 2, 1), last=TODAY)
    dropped = DayRange(first=dt.date(2025, 12, 31), last=dt.date(2026, 1, 1))
    for by in By:
        assert usage_query.reads_audit_log(by, recent, kept_from=kept_from)
    for by in (By.TENANT, By.KEY, By.DAY, By.MONTH):
        assert not usage_query.reads_audit_log(by, long, kept_from=kept_from)
        assert not usage_query.reads_audit_log(by, dropped, kept_from=kept_from)
    for by in (By.MODEL, By.STATUS):
        with pytest.raises(InvalidRequestError, match=f"at most 92 days before to with by {by}"):
            usage_query.reads_audit_log(by, long, kept_from=kept_from)
        with pytest.raises(InvalidRequestError, match="must not be before 2026-01-01"):
            usage_query.reads_audit_log(by, dropped, kept_from=kept_from)


@given(days)
def test_the_periods_of_a_day_hold_it_and_end_at_midnight_after_it(day):
    periods = Periods(day=day)
    day_end, month_end, total_end = periods.ends
    assert periods.names == (f"{day:%Y%m%d}".zfill(8), f"{day:%Y%m}".zfill(6), "total")
    assert day_end.date() == day + dt.timedelta(days=1)
    assert month_end.day == 1
    assert dt.timedelta(0) < month_end - dt.datetime.combine(day, dt.time(), dt.UTC) <= dt.timedelta(days=31)
    assert day_end.time() == month_end.time() == dt.time()
    assert total_end is None


def test_a_key_inherits_the_number_of_its_tenant_for_itself_and_overrides_it_with_its_own():
    periods = Periods(day=TODAY)
    tenant, key = a_tenant(budget_day=1000, budget_month=20_000), a_key(budget_month=5000)
    of_tenant = usage_query.budgets(tenant, None, periods, spent={}, counters={})
    of_key = usage_query.budgets(tenant, key, periods, spent={}, counters={})
    assert [(row.limit, row.source) for row in of_tenant] == [(1000, "tenant"), (20_000, "tenant"), (None, "none")]
    assert [(row.limit, row.source) for row in of_key] == [(1000, "tenant"), (5000, "key"), (None, "none")]
    assert [row.remaining for row in of_key] == [1000, 5000, None]


def test_what_remains_is_the_limit_less_used_and_reserved_and_never_below_nothing():
    tenant = a_tenant(budget_day=1000, budget_month=100, budget_total=0)
    scope = keyspace.tenant_scope(tenant.id)
    counters = {
        (scope, Period("20261121")): Counter(used=300, reserved=200),
        (scope, Period("202611")): Counter(used=300, reserved=200),
    }
    spent = {(scope, Period("20261121")): Spent(tokens=250, requests=3)}
    day, month, total = usage_query.budgets(tenant, None, Periods(day=TODAY), spent=spent, counters=counters)
    assert (day.remaining, month.remaining, total.remaining) == (500, 0, 0)
    assert (day.spent.tokens, day.spent.requests, month.spent.tokens) == (250, 3, 0)


def test_nothing_is_said_to_remain_when_the_counters_are_not_known():
    rows = usage_query.budgets(a_tenant(budget_day=1000), None, Periods(day=TODAY), spent={}, counters=None)
    assert [(row.counter, row.remaining) for row in rows] == [(None, None)] * 3
