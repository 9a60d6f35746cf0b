"""Questions about usage: which days, from which source, and what a budget amounts to. Pure rules.

Days and months are UTC. What a period is called is said in ``shared.keyspace``: ``20261121``, ``202611``, ``total``.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Literal

import msgspec

from controlplane.core.counters import TOTAL
from controlplane.core.keys import Key
from controlplane.core.tenants import Tenant
from controlplane.errors import InvalidRequestError
from shared import keyspace
from shared.keyspace import Period, Scope
from shared.layout import Counter
from shared.records import LimitsRecord

# Every day of a range is a partition of the audit log with locks of its own.
MAX_AUDIT_DAYS = 92
MAX_SUM_DAYS = 1100

_DAY = re.compile(r"(?P<year>\d{4})(?P<dash>-?)(?P<month>\d{2})(?P=dash)(?P<day>\d{2})", re.ASCII)
_MONTH = re.compile(r"(?P<year>\d{4})-?(?P<month>\d{2})", re.ASCII)
_YEARS = range(2000, 2200)

LimitSource = Literal["none", "tenant", "key"]


class By(StrEnum):
    """What the rows of a usage query are about."""

    TENANT = "tenant"
    KEY = "key"
    MODEL = "model"
    DAY = "day"
    MONTH = "month"
    STATUS = "status"


class DayRange(msgspec.Struct, frozen=True, kw_only=True):
    """Days, the last included."""

    first: dt.date
    last: dt.date

    @property
    def days(self) -> int:
        """How many."""
        return (self.last - self.first).days + 1


class Periods(msgspec.Struct, frozen=True, kw_only=True):
    """The periods that a day belongs to."""

    day: dt.date

    @property
    def names(self) -> tuple[Period, Period, Period]:
        """Day, month, total."""
        return Period(f"{self.day:%Y%m%d}"), Period(f"{self.day:%Y%m}"), TOTAL

    @property
    def ends(self) -> tuple[dt.datetime, dt.datetime, None]:
        """When each of them ends."""
        tomorrow = self.day + dt.timedelta(days=1)
        return _midnight(tomorrow), _midnight(_month_end(self.day) + dt.timedelta(days=1)), None


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """What the ledger says of a scope in a period."""

    tokens: int = 0
    requests: int = 0


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """One scope in one period. ``key`` is None for the tenant, ``counter`` None when it could not be read."""

    key: Key | None
    period: Period
    ends_at: dt.datetime | None
    limit: int | None
    source: LimitSource
    spent: Spent
    counter: Counter | None

    @property
    def remaining(self) -> int | None:
        """What may still be reserved; None without a limit, and when nobody knows."""
        if self.limit is None or self.counter is None:
            return None
        return max(0, self.limit - self.counter.used - self.counter.reserved)


def day_range(first: str, last: str, *, today: dt.date) -> DayRange:
    """The days from ``first`` to ``last``, each a day, a month, or empty for its default.

    Raises ``InvalidRequestError`` with every fault.
    """
    faults: list[str] = []
    days = []
    for field, text, default in (("from", first, today.replace(day=1)), ("to", last, today)):
        try:
            days.append(_day(text, at_end=field == "to") if text else default)
        except ValueError:
            faults.append(f"{field} must be a day such as 2026-11-21 or a month such as 2026-11")
    if faults:
        raise InvalidRequestError(*faults)
    found = DayRange(first=days[0], last=days[1])
    if found.days < 1:
        raise InvalidRequestError("to must not be before from")
    if found.days > MAX_SUM_DAYS:
        raise InvalidRequestError(f"from must be at most {MAX_SUM_DAYS} days before to")
    return found


def reads_audit_log(by: By, days: DayRange, *, kept_from: dt.date) -> bool:
    """Whether the rows of the audit log answer it, or only the sums per day; ``kept_from`` is its oldest day.

    Raises ``InvalidRequestError`` where neither can.
    """
    if days.days <= MAX_AUDIT_DAYS and days.first >= kept_from:
        return True
    if by not in (By.MODEL, By.STATUS):
        return False
    if days.days > MAX_AUDIT_DAYS:
        raise InvalidRequestError(f"from must be at most {MAX_AUDIT_DAYS} days before to with by {by}")
    raise InvalidRequestError(f"from must not be before {kept_from} with by {by}: the audit log begins there")


def read_day(text: str) -> dt.date:
    """A single day, ``20261121`` or ``2026-11-21``. Raises ``ValueError``."""
    if _DAY.fullmatch(text) is None:
        raise ValueError("not a day")
    return _day(text, at_end=False)


def scope_of(tenant: Tenant, key: Key | None) -> Scope:
    """The scope of a key, or of its tenant."""
    return keyspace.tenant_scope(tenant.id) if key is None else keyspace.key_scope(key.id)


def budgets(
    tenant: Tenant,
    key: Key | None,
    periods: Periods,
    *,
    spent: Mapping[tuple[Scope, Period], Spent],
    counters: Mapping[tuple[Scope, Period], Counter] | None,
) -> list[Budget]:
    """The budgets of a key, or of the tenant, by period; what is missing in a mapping is 0."""
    scope = scope_of(tenant, key)
    limits = ("budget_day", "budget_month", "budget_total")
    found = []
    for field, period, ends_at in zip(limits, periods.names, periods.ends, strict=True):
        limit, source = _effective(field, tenant.limits, None if key is None else key.limits)
        found.append(
            Budget(
                key=key,
                period=period,
                ends_at=ends_at,
                limit=limit,
                source=source,
                spent=spent.get((scope, period), Spent()),
                counter=None if counters is None else counters.get((scope, period), Counter()),
            )
        )
    return found


def _effective(field: str, tenant: LimitsRecord, key: LimitsRecord | None) -> tuple[int | None, LimitSource]:
    """A key that sets nothing inherits its tenant's number, which then also holds for that key alone."""
    own: int | None = None if key is None else getattr(key, field)
    if own is not None:
        return own, "key"
    inherited: int | None = getattr(tenant, field)
    return inherited, "none" if inherited is None else "tenant"


def _day(text: str, *, at_end: bool) -> dt.date:
    """The day, or the first or last one of the month. Raises ``ValueError``."""
    found = _DAY.fullmatch(text)
    if found is not None:
        day = dt.date(int(found["year"]), int(found["month"]), int(found["day"]))
    elif (found := _MONTH.fullmatch(text)) is not None:
        day = dt.date(int(found["year"]), int(found["month"]), 1)
        day = _month_end(day) if at_end else day
    else:
        raise ValueError("neither a day nor a month")
    if day.year not in _YEARS:
        raise ValueError("beyond what the ledger holds")
    return day


def _month_end(day: dt.date) -> dt.date:
    return (day.replace(day=1) + dt.timedelta(days=31)).replace(day=1) - dt.timedelta(days=1)


def _midnight(day: dt.date) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(), dt.UTC)
