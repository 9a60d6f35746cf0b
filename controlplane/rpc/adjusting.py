"""Applying a correction: checked against ledger and counters, applied in Redis once, awaited in the ledger."""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from collections.abc import Mapping, Sequence

import msgspec

from controlplane.core import corrections, usage_query
from controlplane.core.corrections import CORRECTABLE_DAYS, Correction
from controlplane.core.keys import Key
from controlplane.core.tenants import Tenant
from controlplane.core.usage_query import Spent
from controlplane.errors import (
    AlreadyExistsError,
    RedisUnavailableError,
    StateConflictError,
    StoreUnavailableError,
    UncertainOutcomeError,
)
from controlplane.publish.budgets import BudgetCounters, Decision
from controlplane.store import audit, usage
from controlplane.store.audit import AuditEntry
from shared import keyspace
from shared.keyspace import Period, Scope
from shared.layout import Counter

# How long a correction waits for the ledger before it answers that it will follow.
RECORD_TIMEOUT_S = 3.0
RECORD_POLL_S = 0.05
_BELOW_ZERO = "tokens must not take what is used below 0 in any period"


class Adjustment(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a correction, with the counters after it."""

    correction_id: str
    counters: Mapping[tuple[Scope, Period], Counter]
    applied_before: bool = False
    recorded: bool = False


class Adjuster:
    """Applies corrections. ``record_timeout_s`` is how long it waits for the ledger."""

    def __init__(self, counters: BudgetCounters, *, record_timeout_s: float = RECORD_TIMEOUT_S) -> None:
        self._counters = counters
        self._record_timeout_s = record_timeout_s

    async def adjust(
        self,
        tenant: Tenant,
        key: Key | None,
        *,
        tokens: int,
        period: str,
        reason: str,
        operator: str,
        correction_id: str,
        check_only: bool,
    ) -> Adjustment:
        """Corrects a key and its tenant, or the tenant alone; with ``check_only`` says what would result.

        Raises ``InvalidRequestError`` (the period), ``StateConflictError``, ``AlreadyExistsError``,
        ``StoreUnavailableError``, ``RedisUnavailableError`` (nothing has changed), ``UncertainOutcomeError``.
        """
        now = await self._counters.now()
        correction = Correction(
            id=correction_id or str(uuid.uuid4()),
            tenant_id=tenant.id,
            key_id=None if key is None else key.id,
            tokens=tokens,
            day=corrections.corrected_day(period, today=now.date()),
            reason=reason,
            operator=operator,
        )
        scopes = [usage_query.scope_of(tenant, each) for each in ([None] if key is None else [None, key])]
        known = await _find(correction, now)
        if known is not None:
            _check_same(correction, known, tenant, key)
            return await self._applied_before(correction, scopes)
        return await self._apply(correction, scopes, now, check_only=check_only)

    async def _apply(
        self, correction: Correction, scopes: Sequence[Scope], now: dt.datetime, *, check_only: bool
    ) -> Adjustment:
        shard = keyspace.shard_of(correction.tenant_id)
        checked = await self._counters.adjust(shard, correction, scopes, now, check_only=True)
        _check(checked.decision)
        await _check_ledger(correction, scopes, checked.counters)
        if check_only:
            return Adjustment(correction_id=correction.id, counters=checked.counters)
        try:
            done = await self._counters.adjust(shard, correction, scopes, now, check_only=False)
        except RedisUnavailableError as fault:
            raise UncertainOutcomeError(
                f"Redis has not answered: repeat with correction_id {correction.id}, which is applied once"
            ) from fault
        _check(done.decision)
        return Adjustment(
            correction_id=correction.id,
            counters=done.counters,
            applied_before=done.decision is Decision.AGAIN,
            recorded=await self._until_recorded(correction, now),
        )

    async def _applied_before(self, correction: Correction, scopes: Sequence[Scope]) -> Adjustment:
        wanted = [(scope, period) for scope in scopes for period in correction.periods.names]
        counters = await self._counters.read(keyspace.shard_of(correction.tenant_id), wanted)
        return Adjustment(correction_id=correction.id, counters=counters or {}, applied_before=True, recorded=True)

    async def _until_recorded(self, correction: Correction, now: dt.datetime) -> bool:
        """Whether the ledger has it in time; Redis could still lose what only Redis has."""
        for _ in range(max(1, round(self._record_timeout_s / RECORD_POLL_S))):
            try:
                if await _find(correction, now) is not None:
                    return True
            except StoreUnavailableError:
                return False
            await asyncio.sleep(RECORD_POLL_S)
        return False

    def __repr__(self) -> str:
        return f"Adjuster({self._counters!r})"


async def _find(correction: Correction, now: dt.datetime) -> AuditEntry | None:
    return await audit.find_correction(correction.event_id, since=now.date() - dt.timedelta(days=CORRECTABLE_DAYS + 1))


async def _check_ledger(
    correction: Correction, scopes: Sequence[Scope], counters: Mapping[tuple[Scope, Period], Counter]
) -> None:
    """Where Redis keeps no counter, the period is long over and the ledger has all of it."""
    spent = await usage.spent(scopes, correction.periods.names)
    for name in ((scope, period) for scope in scopes for period in correction.periods.names):
        if name not in counters and spent.get(name, Spent()).tokens + correction.tokens < 0:
            raise StateConflictError(_BELOW_ZERO)


def _check(decision: Decision) -> None:
    match decision:
        case Decision.NEGATIVE:
            raise StateConflictError(_BELOW_ZERO)
        case Decision.OVERFLOW:
            raise StateConflictError("tokens would take what is used beyond what can be counted exactly")
        case Decision.OTHER:
            raise _other_content()
        case Decision.APPLIED | Decision.AGAIN:
            return


def _check_same(correction: Correction, known: AuditEntry, tenant: Tenant, key: Key | None) -> None:
    same = (known.tenant, known.key, known.total_tokens, known.day) == (
        tenant.name,
        "" if key is None else key.prefix,
        correction.tokens,
        correction.day,
    )
    if not same:
        raise _other_content()


def _other_content() -> AlreadyExistsError:
    return AlreadyExistsError("correction_id belongs to another correction")
