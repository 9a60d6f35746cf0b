"""Every branch of every script, on a real server, without a link in between."""

from __future__ import annotations

import datetime as dt
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataplane.quota.calls import LEASE_TTL_MS
from dataplane.values import Principal
from shared import keyspace
from shared.keyspace import LeaseId
from shared.layout import OpenLease
from shared.quota.library import LIBRARY
from tests.fakes import counted
from tests.fakes.published_state import PublishedState
from tests.integration.quota.caller import CAP, CRASHED, Caller

pytestmark = pytest.mark.redis


@pytest.fixture
def caller(state: PublishedState) -> Caller:
    return Caller(state, state.principal(concurrent=2, tenant_concurrent=3))


def test_admitted_request_holds_a_slot_of_its_key_and_of_its_tenant(caller: Caller):
    seconds, _ = caller.state.client.time()
    decision, retry_after_ms, _, *windows, day, month, granted = caller.acquire("one")
    assert decision == b"admitted"
    assert windows == [1, 75, 1, 75, 0, 0]
    assert granted == 50
    assert str(day) == dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y%m%d")
    assert retry_after_ms == 0
    assert caller.state.slots(caller.principal) == (1, 1, 1)
    lease = counted.lease(caller.state.client, caller.principal.shard, "one")
    assert lease is not None
    assert abs(lease.admitted_at_ms - seconds * 1000) < 5000
    assert lease == OpenLease(
        reserved=150,
        estimate=75,
        admitted_at_ms=lease.admitted_at_ms,
        granted=50,
        prompt_bound=100,
        day=str(day),
        month=str(month),
        is_abandoned=False,
        key=keyspace.key_scope(caller.principal.key_id),
        tenant=keyspace.tenant_scope(caller.principal.tenant_id),
        prepared=CRASHED,
    )
    assert set(caller.state.budgets(caller.principal).values()) == {(0, 150)}
    assert len(caller.state.budgets(caller.principal)) == 6
    assert caller.state.client.pttl(keyspace.lease(caller.principal.shard, LeaseId("one"))) > LEASE_TTL_MS


def test_every_key_but_state_has_a_time_to_live(caller: Caller):
    caller.acquire("one")
    caller.settle("one")
    caller.acquire("two")
    forever = {
        name.decode().split(":", 2)[2].split(":")[0]
        for name in caller.state.client.keys("gateway:{*")
        if caller.state.client.pttl(name) == -1
    }
    assert forever == {"fence", "live", "usage", "expiry", "leases", "counters"}


def test_concurrency_of_the_key_is_a_limit(caller: Caller):
    assert [caller.acquire()[0] for _ in range(3)] == [b"admitted", b"admitted", b"concurrency"]
    assert caller.acquire()[1] == 1000


def test_concurrency_of_the_tenant_is_a_limit_and_a_denial_writes_nothing(state: PublishedState, caller: Caller):
    other = Caller(state, state.principal(concurrent=2, tenant_concurrent=3, tenant_id=caller.principal.tenant_id))
    assert [caller.acquire()[0], caller.acquire()[0], other.acquire()[0]] == [b"admitted"] * 3
    assert other.acquire()[0] == b"concurrency"
    assert state.slots(other.principal) == (1, 3, 3)


def test_no_limit_of_concurrency_admits_all(state: PublishedState):
    caller = Caller(state, state.principal(concurrent=None, tenant_concurrent=None))
    assert {caller.acquire()[0] for _ in range(20)} == {b"admitted"}


def test_limit_zero_admits_nobody(state: PublishedState):
    assert Caller(state, state.principal(concurrent=0)).acquire()[0] == b"concurrency"


def test_expired_lease_frees_its_slot(caller: Caller):
    caller.acquire("one")
    caller.acquire("two")
    caller.expire("one")
    assert caller.acquire("three")[0] == b"admitted"


def test_repeated_admission_gives_the_first_decision_and_one_slot(caller: Caller):
    first = caller.acquire("one")
    for again in (caller.acquire("one"), caller.acquire("one")):
        assert (again[0], again[3:7], again[9:]) == (b"admitted", first[3:7], first[9:])
    assert caller.state.slots(caller.principal) == (1, 1, 1)


def test_lease_of_somebody_else_is_not_given_away(state: PublishedState, caller: Caller):
    caller.acquire("one")
    other = Caller(state, state.principal(tenant_id=caller.principal.tenant_id))
    assert other.acquire("one")[0] == b"closed"


@pytest.mark.parametrize("end", ["settle", "abandon", "expire"])
def test_lease_that_is_over_is_not_admitted_again(caller: Caller, end: str):
    caller.acquire("one")
    getattr(caller, end)("one")
    assert caller.acquire("one")[0] == b"closed"


@pytest.mark.parametrize(
    ("key", "tenant", "decision"),
    [
        (-2, 1, b"key_refused"),
        (1, -2, b"tenant_refused"),
        (2, 1, b"stale"),
        (1, 2, b"stale"),
        (2, -2, b"tenant_refused"),
        (1, 1, b"allowed"),
    ],
)
def test_live_versions_decide_for_check_and_acquire(caller: Caller, key: int, tenant: int, decision: bytes):
    caller.state.live(caller.principal, key=key, tenant=tenant)
    assert caller.check() == decision
    assert caller.acquire()[0] == (b"admitted" if decision == b"allowed" else decision)


def test_record_that_is_ahead_of_its_live_version_is_accepted(state: PublishedState):
    principal = state.principal()
    ahead = Principal(**{name: getattr(principal, name) for name in principal.__struct_fields__} | {"key_version": 7})
    assert Caller(state, ahead).acquire()[0] == b"admitted"


@pytest.mark.parametrize("scope", ["key", "tenant"])
def test_missing_live_version_cannot_be_checked(caller: Caller, scope: str):
    principal = caller.principal
    field = keyspace.key_scope(principal.key_id) if scope == "key" else keyspace.tenant_scope(principal.tenant_id)
    caller.state.client.hdel(keyspace.live(principal.shard), field)
    assert caller.acquire()[0] == caller.check() == b"missing"


def test_nothing_is_done_in_a_shard_without_a_valid_fence(caller: Caller):
    caller.acquire("one")
    for fence in (None, "somebody-else:1:1", caller.incarnation.decode()[:-2]):
        name = keyspace.fence(caller.principal.shard)
        caller.state.client.delete(name)
        if fence is not None:
            caller.state.client.set(name, fence)
        assert caller.acquire()[0] == caller.check() == b"unfenced"
        assert caller.settle("one") == caller.append() == b"unfenced"
        assert caller.renew("one") == [b"unfenced"]
    assert caller.state.usage(caller.principal) == []
    assert caller.state.slots(caller.principal) == (1, 1, 1)


@pytest.mark.parametrize(("offset_ms", "decision"), [(-1, b"expired"), (60_000, b"admitted")])
def test_expiry_is_compared_with_the_time_of_the_server(state: PublishedState, offset_ms: int, decision: bytes):
    seconds, _ = state.client.time()
    caller = Caller(state, state.principal(expires_at_ms=seconds * 1000 + offset_ms))
    assert caller.acquire()[0] == decision


def test_backlog_at_its_cap_denies(caller: Caller):
    for _ in range(CAP - 1):
        caller.append()
    assert caller.acquire()[0] == b"admitted"
    caller.append()
    assert caller.acquire()[0] == caller.check() == b"backlog"


def test_a_backlog_of_too_many_bytes_denies_as_long_as_the_control_plane_says_so(caller: Caller):
    flag = keyspace.deny(caller.principal.shard)
    caller.state.client.set(flag, "bytes")
    assert caller.acquire()[0] == caller.check() == b"backlog"
    caller.state.client.delete(flag)
    assert (caller.acquire()[0], caller.check()) == (b"admitted", b"allowed")


def test_settlement_three_times_over_has_one_effect(caller: Caller):
    caller.acquire("one")
    assert [caller.settle("one", b'{"a":1}') for _ in range(3)] == [b"settled", b"again", b"again"]
    assert caller.state.usage(caller.principal) == [b'{"a":1}']
    assert caller.state.slots(caller.principal) == (0, 0, 0)


def test_settlement_of_an_unknown_lease_is_charged_once(caller: Caller):
    assert [caller.settle("never"), caller.settle("never")] == [b"charged", b"again"]
    assert len(caller.state.usage(caller.principal)) == 1


def test_settlement_of_an_expired_lease_is_charged(caller: Caller):
    caller.acquire("one")
    caller.expire("one")
    assert caller.settle("one") == b"settled"
    assert len(caller.state.usage(caller.principal)) == 1


def test_abandoned_lease_costs_nothing_and_frees_its_slots(caller: Caller):
    caller.acquire("one")
    assert [caller.abandon("one"), caller.abandon("one")] == [b"abandoned", b"settled"]
    assert caller.state.slots(caller.principal) == (0, 0, 0)
    assert caller.state.usage(caller.principal) == []


def test_admission_that_comes_after_its_abandonment_is_refused(caller: Caller):
    assert caller.abandon("one") == b"abandoned"
    assert caller.acquire("one")[0] == b"closed"
    assert caller.state.slots(caller.principal) == (0, 0, 0)


def test_abandoning_a_settled_lease_takes_nothing_back(caller: Caller):
    caller.acquire("one")
    caller.settle("one")
    assert caller.abandon("one") == b"settled"
    assert len(caller.state.usage(caller.principal)) == 1


def test_renewal_extends_what_is_alive_and_never_revives(caller: Caller):
    caller.acquire("alive")
    caller.acquire("expired")
    caller.expire("expired")
    expiry = keyspace.expiry(caller.principal.shard)
    seconds, _ = caller.state.client.time()
    caller.state.client.zadd(expiry, {"alive": (seconds + 5) * 1000})
    reply = caller.renew("alive", "expired", "unknown")
    assert reply == [b"renewed", b"expired", b"lost", b"unknown", b"lost"]
    assert caller.state.client.zscore(expiry, "alive") >= seconds * 1000 + LEASE_TTL_MS
    assert caller.state.client.zscore(expiry, "expired") == 1
    assert caller.state.client.zscore(expiry, "unknown") is None


def test_renewal_names_settled_leases_as_lost(caller: Caller):
    caller.acquire("one")
    caller.settle("one")
    assert caller.renew("one") == [b"renewed", b"one", b"lost"]


@pytest.mark.parametrize(
    "versions", [{"key": -2}, {"tenant": -2}, {"key": 0}], ids=["key revoked", "tenant suspended", "no version"]
)
def test_renewal_names_the_leases_of_the_refused(caller: Caller, versions: dict[str, int]):
    caller.acquire("one")
    caller.state.live(caller.principal, **versions)
    assert caller.renew("one") == [b"renewed", b"one", b"refused"]


def test_renewal_goes_on_under_a_newer_version(caller: Caller):
    caller.acquire("one")
    caller.state.live(caller.principal, key=9, tenant=9)
    assert caller.renew("one") == [b"renewed"]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moment=st.datetimes(min_value=dt.datetime(1970, 1, 1), max_value=dt.datetime(2400, 12, 31)))  # noqa: DTZ001
def test_day_is_the_calendars(state: PublishedState, moment: dt.datetime):
    source = re.search(r"local function period_ids.*?\nend\n", LIBRARY.text, re.DOTALL)
    assert source is not None
    now_ms = int(moment.replace(tzinfo=dt.UTC).timestamp() * 1000)
    day, month = state.client.eval(f"{source[0]} return {{ period_ids(tonumber(ARGV[1])) }}", 0, now_ms)
    assert str(day) == dt.datetime.fromtimestamp(now_ms / 1000, dt.UTC).strftime("%Y%m%d")
    assert month == day // 100


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moment=st.datetimes(min_value=dt.datetime(1999, 1, 1), max_value=dt.datetime(2105, 12, 31)))  # noqa: DTZ001
def test_a_budget_begins_anew_with_its_day_or_its_month(state: PublishedState, moment: dt.datetime):
    moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000, tzinfo=dt.UTC)
    functions = re.findall(r"local function (?:period_ids|ms_until_next).*?\nend\n", LIBRARY.text, re.DOTALL)
    calls = ", ".join(f"ms_until_next('budget_{name}', now, day)" for name in ("day", "month", "total"))
    source = "".join(functions) + f"local now = tonumber(ARGV[1]) local day = period_ids(now) return {{ {calls} }}"
    now_ms = round(moment.timestamp() * 1000)
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    tomorrow, next_month = (
        midnight + dt.timedelta(days=1),
        (midnight.replace(day=1) + dt.timedelta(days=32)).replace(day=1),
    )
    expected = [round((begins - moment) / dt.timedelta(milliseconds=1)) for begins in (tomorrow, next_month)]
    assert state.client.eval(source, 0, now_ms) == [*expected, 86_400_000]
