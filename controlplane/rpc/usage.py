"""``UsageService``: what was used, what is left, the audit log, and corrections."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Mapping, Sequence

import grpc
import msgspec

from controlplane.core import usage_query
from controlplane.core.keys import Key
from controlplane.core.ports import Keys, Tenants
from controlplane.core.tenants import Tenant
from controlplane.core.usage_query import By, Periods
from controlplane.errors import InvalidRequestError, RedisUnavailableError
from controlplane.publish.budgets import BudgetCounters
from controlplane.rpc import authz, convert
from controlplane.rpc import usage_messages as messages
from controlplane.rpc.adjusting import Adjuster
from controlplane.rpc.tails import Tails
from controlplane.store import audit, usage
from controlplane.store.audit import Position
from neuronetz.admin.v1 import usage_pb2 as pb
from neuronetz.admin.v1 import usage_pb2_grpc
from shared import keyspace
from shared.keyspace import KeyId, Period, Scope, TenantId
from shared.layout import Counter

type Context = grpc.aio.ServicerContext[object, object]


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a request is about: a key and its tenant, a tenant, or everybody."""

    tenant: Tenant | None = None
    key: Key | None = None

    @property
    def tenant_id(self) -> TenantId | None:
        """Only rows of this tenant."""
        return None if self.tenant is None else self.tenant.id

    @property
    def key_id(self) -> KeyId | None:
        """Only rows of this key."""
        return None if self.key is None else self.key.id


class UsageService(usage_pb2_grpc.UsageServiceServicer):
    """Reads the ledger and the counters; ``audit_log_days`` is how long rows of the audit log are kept."""

    def __init__(
        self,
        *,
        tenants: Tenants,
        keys: Keys,
        counters: BudgetCounters,
        adjuster: Adjuster,
        tails: Tails,
        audit_log_days: int,
    ) -> None:
        self._tenants = tenants
        self._keys = keys
        self._counters = counters
        self._adjuster = adjuster
        self._tails = tails
        self._audit_log_days = audit_log_days

    async def GetUsage(self, request: pb.GetUsageRequest, context: Context) -> pb.GetUsageResponse:
        """As the proto says."""
        by = messages.read_by(request.by)
        today = (await audit.now()).date()
        # The field is called as operators type it, which is a keyword here.
        days = usage_query.day_range(getattr(request, "from"), request.to, today=today)
        kept_from = today - dt.timedelta(days=self._audit_log_days)
        reads_audit_log = usage_query.reads_audit_log(by, days, kept_from=kept_from)
        subject = await self._subject(request.tenant, request.key)
        summed = usage.sum_audit_log if reads_audit_log else usage.sum_days
        sums = await summed(by, days, tenant_id=subject.tenant_id, key_id=subject.key_id)
        rows = sums.rows
        if by in (By.DAY, By.MONTH, By.STATUS):
            rows = tuple(sorted(rows, key=lambda row: (row.period, row.status or 0)))
        return pb.GetUsageResponse(
            rows=[messages.write_sum(row) for row in rows],
            total=messages.write_sum(sums.total),
            first_day=f"{days.first:%Y%m%d}",
            last_day=f"{days.last:%Y%m%d}",
            source=pb.USAGE_SOURCE_AUDIT_LOG if reads_audit_log else pb.USAGE_SOURCE_SUMS,
            rows_left_out=sums.left_out,
        )

    async def GetBudgets(self, request: pb.GetBudgetsRequest, context: Context) -> pb.GetBudgetsResponse:
        """As the proto says."""
        size = convert.read_page_size(request.page_size)
        position = messages.read_key_position(request.page_token)
        tenant, key = await self._budget_subject(request.tenant, request.key)
        found = (
            [key]
            if key
            else await self._keys.page(
                tenant_id=tenant.id, include_ended=request.include_ended, after=position, size=size + 1
            )
        )
        shown: list[Key | None] = [*([] if position else [None]), *found[:size]]
        scopes = [usage_query.scope_of(tenant, each) for each in shown]
        periods, state, counters = await self._read_counters(tenant, scopes)
        spent = await usage.spent(scopes, periods.names)
        budgets = [
            budget
            for each in shown
            for budget in usage_query.budgets(tenant, each, periods, spent=spent, counters=counters)
        ]
        return pb.GetBudgetsResponse(
            budgets=[messages.write_budget(budget) for budget in budgets],
            tenant=tenant.name,
            counters=state,
            next_page_token=messages.write_key_position(found[size - 1]) if len(found) > size else "",
        )

    async def QueryAudit(self, request: pb.QueryAuditRequest, context: Context) -> pb.QueryAuditResponse:
        """As the proto says."""
        size = convert.read_page_size(request.page_size)
        span = messages.read_span(request, now=await audit.now())
        subject = await self._subject(request.tenant, request.key)
        wanted = messages.read_filter(request, subject.tenant_id, subject.key_id)
        found = await audit.page(wanted, since=span.since, before=span.before, after=span.after, size=size + 1)
        return pb.QueryAuditResponse(
            rows=[messages.write_entry(entry) for entry in found[:size]],
            next_page_token=messages.write_span_position(span, found[size - 1]) if len(found) > size else "",
        )

    async def TailAudit(self, request: pb.TailAuditRequest, context: Context) -> AsyncIterator[pb.TailAuditResponse]:
        """As the proto says."""
        after = messages.read_resume_token(request.resume_token, now=await audit.now())
        subject = await self._subject(request.tenant, request.key)
        wanted = messages.read_filter(request, subject.tenant_id, subject.key_id)
        position = after or await audit.horizon()
        # Tells the caller that what is recorded from now on will be shown.
        await context.send_initial_metadata(())
        async with contextlib.aclosing(self._tails.follow(wanted, position)) as entries:
            async for entry in entries:
                token = messages.write_resume_token(Position(entry.ingested, entry.event_id), dt.datetime.now(dt.UTC))
                yield pb.TailAuditResponse(row=messages.write_entry(entry), resume_token=token)

    async def AdjustBudget(self, request: pb.AdjustBudgetRequest, context: Context) -> pb.AdjustBudgetResponse:
        """As the proto says."""
        messages.check_correction(request)
        tenant, key = await self._budget_subject(request.tenant, request.key)
        done = await self._adjuster.adjust(
            tenant,
            key,
            tokens=request.tokens,
            period=request.period,
            reason=request.reason.strip(),
            operator=authz.CALLER.get().name,
            correction_id=request.correction_id,
            check_only=request.validate_only,
        )
        prefixes = {} if key is None else {keyspace.key_scope(key.id): key.prefix}
        return pb.AdjustBudgetResponse(
            correction_id=done.correction_id,
            counters=[
                pb.CorrectedCounter(
                    key=prefixes.get(scope, ""), period=period, used=counter.used, reserved=counter.reserved
                )
                for (scope, period), counter in done.counters.items()
            ],
            applied_before=done.applied_before,
            recorded=done.recorded,
        )

    async def _read_counters(
        self, tenant: Tenant, scopes: Sequence[Scope]
    ) -> tuple[Periods, pb.Counters.ValueType, Mapping[tuple[Scope, Period], Counter] | None]:
        """The current periods and their counters; by the clock of Postgres and without counters if Redis is away."""
        try:
            periods = Periods(day=(await self._counters.now()).date())
            wanted = [(scope, period) for scope in scopes for period in periods.names]
            counters = await self._counters.read(keyspace.shard_of(tenant.id), wanted)
        except RedisUnavailableError:
            return Periods(day=(await audit.now()).date()), pb.COUNTERS_UNAVAILABLE, None
        return periods, pb.COUNTERS_REBUILDING if counters is None else pb.COUNTERS_LIVE, counters

    async def _budget_subject(self, tenant: str, key: str) -> tuple[Tenant, Key | None]:
        """The tenant, and the key if one is named. Raises ``NotFoundError``, ``InvalidRequestError``."""
        subject = await self._subject(tenant, key)
        if subject.tenant is None:
            raise InvalidRequestError("tenant or key is required")
        return subject.tenant, subject.key

    async def _subject(self, tenant: str, key: str) -> Subject:
        """Whom names and prefixes mean. Raises ``NotFoundError``, ``InvalidRequestError``."""
        found = await self._keys.get(key) if key else None
        if tenant:
            owner = await self._tenants.get(tenant)
            if found is not None and found.tenant_id != owner.id:
                raise InvalidRequestError("key must belong to the tenant")
            return Subject(tenant=owner, key=found)
        return Subject(tenant=None if found is None else await self._tenants.get(found.tenant_id), key=found)
