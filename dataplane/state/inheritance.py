"""From records to a principal: an unset value of a key inherits its tenant's, an unset one of a tenant the default."""

from __future__ import annotations

from dataplane.values import Grant, Limits, Principal
from shared.keyspace import shard_of
from shared.records import GrantsRecord, KeyRecord, LimitsRecord, TenantRecord


def principal_of(key: KeyRecord, tenant: TenantRecord, defaults: Limits) -> Principal:
    """The principal of a key of a tenant.

    A limit of the tenant holds for all its keys together. A key that sets none of its own inherits the tenant's
    *value*, which then holds for that key alone as well. ``defaults`` are those of the deployment.
    """
    tenant_limits = _limits(tenant.limits, defaults)
    return Principal(
        key_id=key.key_id,
        key_prefix=key.prefix,
        tenant_id=tenant.tenant_id,
        tenant_name=tenant.name,
        shard=shard_of(tenant.tenant_id),
        key_version=key.version,
        tenant_version=tenant.version,
        expires_at_ms=key.expires_at_ms or 0,
        key_limits=_limits(key.limits, tenant_limits),
        tenant_limits=tenant_limits,
        grant=_grant(key.grants, tenant.grants),
        prompt_log_days=_first(key.prompt_log_days, tenant.prompt_log_days),
    )


def _limits(own: LimitsRecord, inherited: Limits) -> Limits:
    return Limits(
        rpm=_first(own.rpm, inherited.rpm),
        tpm=_first(own.tpm, inherited.tpm),
        concurrent=_first(own.concurrent, inherited.concurrent),
        budget_day=_first(own.budget_day, inherited.budget_day),
        budget_month=_first(own.budget_month, inherited.budget_month),
        budget_total=_first(own.budget_total, inherited.budget_total),
    )


def _grant(key: GrantsRecord, tenant: GrantsRecord) -> Grant:
    return Grant(
        all_models=bool(_first(key.allow_all_models, tenant.allow_all_models)),
        models=frozenset(_first(key.allowed_models, tenant.allowed_models) or ()),
    )


def _first[T](own: T | None, inherited: T | None) -> T | None:
    return inherited if own is None else own
