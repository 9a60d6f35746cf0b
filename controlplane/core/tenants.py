"""Tenants: what one is, and what may happen to it."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence

import msgspec

from controlplane.core.limits import GRANT_FIELDS, LIMIT_FIELDS, clear_faults, given_fields, limits_faults, merged
from controlplane.errors import InvalidRequestError
from shared.keyspace import TenantId
from shared.records import GrantsRecord, LimitsRecord, TenantRecord, TenantState

NAME_RULE = "must have 1 to 63 lower-case letters, digits and inner hyphens"
CLEARABLE = LIMIT_FIELDS + GRANT_FIELDS

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """A customer. ``version`` grows with each change; before the first commit it is 0."""

    id: TenantId
    name: str
    state: TenantState = TenantState.ACTIVE
    version: int = 0
    created_at: dt.datetime
    suspended_at: dt.datetime | None = None
    limits: LimitsRecord = LimitsRecord()
    grants: GrantsRecord = GrantsRecord()

    def record(self) -> TenantRecord:
        """What the data plane needs of it."""
        return TenantRecord(
            tenant_id=self.id,
            name=self.name,
            version=self.version,
            state=self.state,
            limits=self.limits,
            grants=self.grants,
        )

    @property
    def live_version(self) -> int:
        """Its entry in ``live``: negative while it is refused."""
        return self.version if self.state is TenantState.ACTIVE else -self.version


def name_faults(name: str) -> list[str]:
    """The rule that a tenant's name breaks, if any."""
    return [] if _NAME.fullmatch(name) else [f"name {NAME_RULE}"]


def updated(
    tenant: Tenant, limits: LimitsRecord, grants: GrantsRecord, clear: Sequence[str], faults: Sequence[str] = ()
) -> Tenant:
    """The tenant with changed limits and grants. Raises ``InvalidRequestError`` with ``faults`` and all others."""
    found = [*faults, *limits_faults(limits), *clear_faults(clear, CLEARABLE, given_fields(limits, grants))]
    if found:
        raise InvalidRequestError(*found)
    return msgspec.structs.replace(
        tenant, limits=merged(tenant.limits, limits, clear), grants=merged(tenant.grants, grants, clear)
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
