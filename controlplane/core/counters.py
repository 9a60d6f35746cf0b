"""The counters that budgets are decided on: which periods count, and what a usage event adds to them. Pure rules."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import msgspec

from controlplane.core.usage import UsageRow
from shared import keyspace, layout
from shared.keyspace import KeyId, Period, Scope, TenantId

TOTAL = layout.TOTAL

# Whose counter, and of which period.
type CounterName = tuple[Scope, Period]


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """A scope with what the ledger and the shards know it by; ``key_id`` is None for the tenant itself."""

    tenant_id: TenantId
    key_id: KeyId | None = None

    @property
    def scope(self) -> Scope:
        """Its scope in Redis."""
        return keyspace.tenant_scope(self.tenant_id) if self.key_id is None else keyspace.key_scope(self.key_id)


def warm_periods(now: dt.datetime) -> tuple[Period, ...]:
    """The periods that a request which runs at a moment (UTC) may be charged to, and ``total``.

    A request is charged to the day and month in which it was admitted, so the ones before still count.
    """
    today = now.date()
    yesterday, last_month = today - dt.timedelta(days=1), today.replace(day=1) - dt.timedelta(days=1)
    return (
        Period(f"{today:%Y%m%d}"),
        Period(f"{yesterday:%Y%m%d}"),
        Period(f"{today:%Y%m}"),
        Period(f"{last_month:%Y%m}"),
        TOTAL,
    )


def periods_of(day: str) -> tuple[Period, Period, Period]:
    """Day, month and total that a request of a day (``20261120``) is charged to."""
    return Period(day), Period(day[:6]), TOTAL


def owners_of(row: UsageRow) -> tuple[Owner, ...]:
    """Whose counters an event is charged to: its tenant, and its key if it has one."""
    tenant_id = TenantId(str(row.tenant_id))
    tenant = Owner(tenant_id=tenant_id)
    return (tenant,) if row.key_id is None else (tenant, Owner(tenant_id=tenant_id, key_id=KeyId(str(row.key_id))))


def charged(row: UsageRow) -> Iterator[tuple[CounterName, int]]:
    """What an event adds to each counter: exactly what the ledger adds to ``budget_usage`` for it."""
    tokens = row.event.prompt_tokens + row.event.completion_tokens
    if not tokens:
        return
    for owner in owners_of(row):
        for period in periods_of(row.event.day):
            yield (owner.scope, period), tokens
