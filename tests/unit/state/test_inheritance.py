"""What a key takes from its tenant, and a tenant from the deployment."""

from __future__ import annotations

import pytest

from dataplane.state.inheritance import principal_of
from dataplane.values import Limits
from shared.keyspace import KeyId, TenantId
from shared.records import KeyRecord, LimitsRecord, TenantRecord

DEFAULTS = Limits(rpm=60, tpm=1000, concurrent=8)
KEY = KeyRecord(key_id=KeyId("k"), tenant_id=TenantId("t"), prefix="nz_000000001", version=1)
TENANT = TenantRecord(tenant_id=TenantId("t"), name="acme", version=1)


@pytest.mark.parametrize(
    ("of_key", "of_tenant", "days"),
    [(None, None, None), (7, None, 7), (None, 3, 3), (7, 3, 7)],
    ids=["neither", "the key", "the tenant", "both"],
)
def test_prompts_are_kept_where_the_key_or_its_tenant_asks_for_it(of_key, of_tenant, days):
    key = KeyRecord(
        key_id=KeyId("k"), tenant_id=TenantId("t"), prefix="nz_000000001", version=1, prompt_log_days=of_key
    )
    tenant = TenantRecord(tenant_id=TenantId("t"), name="acme", version=1, prompt_log_days=of_tenant)
    assert principal_of(key, tenant, DEFAULTS).prompt_log_days == days


def test_an_unset_limit_is_the_tenants_and_an_unset_one_of_the_tenant_the_default():
    tenant = TenantRecord(tenant_id=TenantId("t"), name="acme", version=1, limits=LimitsRecord(rpm=5, budget_day=0))
    principal = principal_of(KEY, tenant, DEFAULTS)
    assert principal.tenant_limits == Limits(rpm=5, tpm=1000, concurrent=8, budget_day=0)
    assert principal.key_limits == principal.tenant_limits
    own = KeyRecord(
        key_id=KeyId("k"), tenant_id=TenantId("t"), prefix="nz_000000001", version=1, limits=LimitsRecord(rpm=2)
    )
    assert principal_of(own, tenant, DEFAULTS).key_limits.rpm == 2
    assert principal_of(KEY, TENANT, DEFAULTS).key_limits == DEFAULTS
