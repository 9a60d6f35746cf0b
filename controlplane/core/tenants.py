"""Tenants: what one is, and what may happen to it."""

from __future__ import annotations

import datetime as dt
import re

import msgspec

from controlplane.core import prompt_log
from controlplane.core.limits import GRANT_FIELDS, LIMIT_FIELDS, clear_faults, given_fields, limits_faults, merged
from controlplane.errors import InvalidRequestError
from shared.keyspace import TenantId
from shared.records import GrantsRecord, LimitsRecord, TenantRecord, TenantState

NAME_RULE = "must have 1 to 63 lower-case letters, digits and inner hyphens"
CLEARABLE = (*LIMIT_FIELDS, *GRANT_FIELDS, "prompt_log_retention_days")

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """A customer. ``version`` grows with each change; before the first commit it is 0."""

    id: TenantId
    name: str
    state: TenantState = TenantState.ACTIVE
    version: int = 0
    created_at: dt.datetime
    suspended_at: dt.datetime | None = None
    # Keeps the prompts of all its keys; a key may also ask for its own.
    prompt_log: bool = False
    prompt_log_retention_days: int | None = None
    limits: LimitsRecord = LimitsRecord()
    grants: GrantsRecord = GrantsRecord()

    def record(self, prompt_log_days: int) -> TenantRecord:
        """What the data plane needs of it; ``prompt_log_days`` is the deployment's default retention."""
        return TenantRecord(
            tenant_id=self.id,
            name=self.name,
            version=self.version,
            state=self.state,
            limits=self.limits,
            grants=self.grants,
            prompt_log_days=prompt_log.kept_days(
                prompt_log=self.prompt_log,
                retention_days=self.prompt_log_retention_days,
                default_days=prompt_log_days,
            ),
        )

    @property
    def live_version(self) -> int:
        """Its entry in ``live``: negative while it is refused."""
        return self.version if self.state is TenantState.ACTIVE else -self.version


def name_faults(name: str) -> list[str]:
    """The rule that a tenant's name breaks, if any."""
    return [] if _NAME.fullmatch(name) else [f"name {NAME_RULE}"]


class TenantChange(msgspec.Struct, frozen=True, kw_only=True):
    """What an update sets and unsets; ``faults`` were found while it was read."""

    limits: LimitsRecord = LimitsRecord()
    grants: GrantsRecord = GrantsRecord()
    prompt_log: bool | None = None
    prompt_log_retention_days: int | None = None
    clear: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()


def change_faults(change: TenantChange) -> list[str]:
    """Every rule that the values of a change break."""
    given = [] if change.prompt_log_retention_days is None else ["prompt_log_retention_days"]
    return [
        *change.faults,
        *limits_faults(change.limits),
        *prompt_log.retention_faults(change.prompt_log_retention_days),
        *clear_faults(change.clear, CLEARABLE, [*given, *given_fields(change.limits, change.grants)]),
    ]


def updated(tenant: Tenant, change: TenantChange) -> Tenant:
    """The changed tenant. Raises ``InvalidRequestError`` with every fault."""
    if faults := change_faults(change):
        raise InvalidRequestError(*faults)
    days = change.prompt_log_retention_days
    if days is None and "prompt_log_retention_days" not in change.clear:
        days = tenant.prompt_log_retention_days
    return msgspec.structs.replace(
        tenant,
        limits=merged(tenant.limits, change.limits, change.clear),
        grants=merged(tenant.grants, change.grants, change.clear),
        prompt_log=tenant.prompt_log if change.prompt_log is None else change.prompt_log,
        prompt_log_retention_days=days,
    )


def suspended(tenant: Tenant, now: dt.datetime) -> Tenant:
    """The tenant, refused; unchanged when it already is."""
    if tenant.state is TenantState.SUSPENDED:
        return tenant
    return msgspec.structs.replace(tenant, state=TenantState.SUSPENDED, suspended_at=now)


def resumed(tenant: Tenant) -> Tenant:
    """The tenant, served again; unchanged when it already is."""
    if tenant.state is TenantState.ACTIVE:
        return tenant
    return msgspec.structs.replace(tenant, state=TenantState.ACTIVE, suspended_at=None)
