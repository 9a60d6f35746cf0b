"""Rules about tenants, keys, limits, roles and errors, without any I/O."""

import datetime as dt
import uuid

import grpc
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane import errors
from controlplane.core import keys, limits, tenants
from controlplane.core.database_url import connection_options
from controlplane.core.keys import Key, KeyChange, KeyStatus
from controlplane.core.roles import Callers, OperatorToken, Role
from controlplane.core.tenants import Tenant, TenantChange
from controlplane.errors import InvalidRequestError, StateConflictError
from controlplane.rpc import authz
from shared.keyspace import KeyId, TenantId
from shared.records import KeyState, LimitsRecord
from shared.redaction import Secret

NOW = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)

values = st.one_of(st.none(), st.integers(1, limits.MAX_LIMIT))
limit_records = st.builds(LimitsRecord, **dict.fromkeys(limits.LIMIT_FIELDS, values))


def a_key(**fields: object) -> Key:
    key = Key(
        id=KeyId(str(uuid.uuid4())),
        tenant_id=TenantId(str(uuid.uuid4())),
        tenant="acme",
        prefix="nz_000000001",
        name="prod",
        version=1,
        created_at=NOW,
    )
    return msgspec.structs.replace(key, **fields)


def a_tenant() -> Tenant:
    return Tenant(id=TenantId(str(uuid.uuid4())), name="acme", version=1, created_at=NOW)


@given(limit_records, limit_records, st.sets(st.sampled_from(limits.LIMIT_FIELDS)))
def test_a_change_sets_what_it_names_unsets_what_it_clears_and_keeps_the_rest(current, change, clear):
    merged = limits.merged(current, change, tuple(clear))
    for field in limits.LIMIT_FIELDS:
        if field in clear:
            assert getattr(merged, field) is None
        elif getattr(change, field) is not None:
            assert getattr(merged, field) == getattr(change, field)
        else:
            assert getattr(merged, field) == getattr(current, field)


@given(st.sampled_from(limits.LIMIT_FIELDS), st.integers(-(2**63), 2**63 - 1))
def test_each_limit_outside_its_range_is_named(field, value):
    minimum = 1 if field in limits.RATE_FIELDS else 0
    faults = limits.limits_faults(LimitsRecord(**{field: value}))
    assert bool(faults) == (not minimum <= value <= limits.MAX_LIMIT)
    assert all(fault.startswith(field) for fault in faults)


def test_models_of_one_name_count_once_and_foreign_ones_are_faults():
    models, faults = limits.parse_models(["Llama3", "llama3:latest", "library/llama3", "x:cloud", ""])
    assert len(models) == 1
    assert len(faults) == 2
    assert limits.parse_models(["m"] * (limits.MAX_MODELS + 1))[1] != []


def test_clear_names_only_what_can_be_unset_and_is_not_set():
    faults = limits.clear_faults(["rpm", "name", "tpm"], limits.LIMIT_FIELDS, ["tpm"])
    assert len(faults) == 2
    assert "name" in faults[0]
    assert "tpm" in faults[1]


@pytest.mark.parametrize("name", ["a", "acme", "a-1", "0", "a" * 63])
def test_good_tenant_names(name):
    assert tenants.name_faults(name) == []


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "ä", "a b", "a_b", "a" * 64, "a\n"])
def test_bad_tenant_names(name):
    assert tenants.name_faults(name) != []


@pytest.mark.parametrize("name", ["", " ", "a ", "a\n", "a\x00", "a" * 101, "\u200b"])
def test_bad_key_names(name):
    assert keys.name_faults(name) != []


def test_key_names_are_what_people_write():
    assert keys.name_faults("prod server #1 (ü)") == []


def test_expiry_is_decided_by_time():
    key = a_key(expires_at=NOW)
    assert key.status(NOW - HOUR) is KeyStatus.ACTIVE
    assert key.status(NOW) is KeyStatus.EXPIRED
    assert a_key(expires_at=NOW, state=KeyState.REVOKED).status(NOW) is KeyStatus.REVOKED
    assert a_key(expires_at=NOW, state=KeyState.SUSPENDED).status(NOW) is KeyStatus.EXPIRED
    assert key.record(30).expires_at_ms == 1_795_219_200_000


def test_what_is_refused_is_negative_in_redis():
    assert a_key(version=7).live_version == 7
    assert a_key(version=7, state=KeyState.SUSPENDED).live_version == -7
    assert tenants.suspended(a_tenant(), NOW).live_version == -1


def test_prompt_log_days_are_kept_only_when_asked_for():
    assert a_key().record(30).prompt_log_days is None
    assert a_key(prompt_log=True).record(30).prompt_log_days == 30
    assert a_key(prompt_log=True, prompt_log_retention_days=3).record(30).prompt_log_days == 3


@pytest.mark.parametrize("change", [keys.resumed, lambda key: keys.suspended(key, NOW)])
def test_a_revoked_key_can_be_neither_suspended_nor_resumed(change):
    with pytest.raises(StateConflictError):
        change(keys.revoked(a_key(), NOW))


def test_repeating_a_change_of_state_changes_nothing():
    revoked = keys.revoked(a_key(), NOW)
    assert keys.revoked(revoked, NOW + HOUR) is revoked
    suspended = keys.suspended(a_key(), NOW)
    assert keys.suspended(suspended, NOW + HOUR) is suspended
    tenant = tenants.suspended(a_tenant(), NOW)
    assert tenants.suspended(tenant, NOW + HOUR) is tenant
    assert tenants.resumed(a_tenant()).suspended_at is None


def test_an_update_names_every_fault():
    change = KeyChange(
        limits=LimitsRecord(rpm=0), expires_at=NOW, prompt_log_retention_days=0, clear=("nothing",), faults=("x",)
    )
    with pytest.raises(InvalidRequestError) as refused:
        keys.updated(a_key(), change, NOW)
    assert len(refused.value.faults) == 5
    with pytest.raises(InvalidRequestError):
        tenants.updated(a_tenant(), TenantChange(limits=LimitsRecord(tpm=0)))


@given(st.integers(0, 10_000), st.one_of(st.none(), st.integers(1, 10_000)))
def test_a_rotation_never_lengthens_the_life_of_the_old_key(overlap_s, expires_in_s):
    expires_at = None if expires_in_s is None else NOW + dt.timedelta(seconds=expires_in_s)
    key = a_key(expires_at=expires_at)
    replaced = keys.replaced(key, dt.timedelta(seconds=overlap_s), NOW)
    if overlap_s == 0:
        assert replaced.state is KeyState.REVOKED
    else:
        assert replaced.expires_at is not None
        assert replaced.expires_at <= NOW + dt.timedelta(seconds=overlap_s)
        assert expires_at is None or replaced.expires_at <= expires_at


@pytest.mark.parametrize("key", [a_key(state=KeyState.REVOKED), a_key(state=KeyState.SUSPENDED), a_key(expires_at=NOW)])
def test_only_an_active_key_is_rotated(key):
    with pytest.raises(StateConflictError):
        keys.successor(key, key_id=key.id, prefix="nz_000000002", now=NOW)


def test_an_overlap_has_bounds():
    assert keys.overlap_faults(dt.timedelta(0)) == []
    assert keys.overlap_faults(dt.timedelta(seconds=-1)) != []
    assert keys.overlap_faults(keys.MAX_OVERLAP + HOUR) != []


def every_error(
    kind: type[errors.ControlPlaneError] = errors.ControlPlaneError,
) -> list[type[errors.ControlPlaneError]]:
    return [*kind.__subclasses__(), *(deeper for below in kind.__subclasses__() for deeper in every_error(below))]


def test_every_error_has_its_row_and_its_place_in_the_tree():
    assert set(errors.STATUS) == set(every_error())
    for kind in every_error():
        assert kind.__name__ in (errors.__doc__ or "")
    assert {status.name for status in errors.Status} <= {code.name for code in grpc.StatusCode}


def test_an_error_that_is_not_for_callers_says_nothing():
    secret = "host=10.0.0.1 password=x"
    for error in (errors.StoreUnavailableError(secret), errors.OverloadedError(secret), ValueError(secret)):
        assert secret not in errors.rendered(error)[1]
    assert "Postgres" in errors.rendered(errors.StoreUnavailableError(secret))[1]
    assert "Redis" in errors.rendered(errors.RedisUnavailableError(secret))[1]
    assert errors.rendered(KeyError()) == (errors.Status.INTERNAL, "internal error")


CALLERS = Callers((OperatorToken(name="a", role=Role.ADMIN, token=Secret("a" * 20)),))


@given(st.lists(st.text(max_size=40), max_size=3))
def test_no_other_header_is_a_caller(headers):
    assert authz.authenticated(CALLERS, headers) is None


def test_the_right_header_is_a_caller():
    caller = authz.authenticated(CALLERS, ["bearer " + "a" * 20])
    assert caller is not None
    assert authz.allowed(caller, "/neuronetz.admin.v1.KeyService/CreateKey") is not None
    assert authz.allowed(caller, "/neuronetz.admin.v1.KeyService/DropKey") is None


@pytest.mark.parametrize(
    ("url", "without_tls"),
    [
        ("postgres://u:p@127.0.0.1:5432/x", True),
        ("postgresql+asyncpg://u:p@localhost/x", True),
        ("postgresql://u:p@localhost/x?sslmode=require", False),
        ("postgresql://u:p@localhost/x?ssl=require", False),
        ("postgres://u:p@db.internal/x", False),
    ],
)
def test_loopback_is_spoken_to_without_tls_unless_asked(url, without_tls):
    options = connection_options(url)
    assert (options.get("ssl") is False) == without_tls
    assert options["dsn"].startswith("postgresql://u:p@")


@pytest.mark.parametrize("url", ["mysql://h/x", "postgres://h", "postgres://h:x/y", "postgres://h/"])
def test_other_addresses_are_refused(url):
    with pytest.raises(ValueError, match="must"):
        connection_options(url)


def test_a_tenants_prompt_log_is_set_kept_and_cleared():
    logged = tenants.updated(a_tenant(), TenantChange(prompt_log=True, prompt_log_retention_days=9))
    assert logged.record(30).prompt_log_days == 9
    assert tenants.updated(logged, TenantChange()).record(30).prompt_log_days == 9
    cleared = tenants.updated(logged, TenantChange(clear=("prompt_log_retention_days",)))
    assert cleared.record(30).prompt_log_days == 30
    assert tenants.updated(logged, TenantChange(prompt_log=False)).record(30).prompt_log_days is None


@pytest.mark.parametrize("days", [0, -1, 3651])
def test_a_retention_that_cannot_be_is_named(days):
    with pytest.raises(InvalidRequestError, match="prompt_log_retention_days must be from 1 to 3650"):
        tenants.updated(a_tenant(), TenantChange(prompt_log_retention_days=days))
