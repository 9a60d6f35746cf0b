"""What holds for any arrivals and sizes: no minute above its limit, no budget overspent, denials write nothing."""

from __future__ import annotations

import math
import struct
from typing import Any

import msgspec
import pytest
import redis as redis_client
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dataplane.quota.calls import PrincipalCalls
from dataplane.values import Demand, Limits
from shared import keyspace
from shared.keyspace import LeaseId, Scope
from shared.layout import Counter
from tests.fakes import counted
from tests.fakes.published_state import PublishedState
from tests.integration.quota.caller import CAP, CRASHED, DEMAND, Caller, decision_of, run
from tests.integration.quota.clock import set_clock

pytestmark = pytest.mark.redis

EXAMPLES = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
MINUTE_MS = 60_000
START_MS = 1_795_305_570_000
EXACT_INTEGERS = 2**53
NEARLY_64_BITS = 2**63 - 10
TINY = Demand(prompt_bound=0, prompt_estimate=0, num_predict=0)
NO_LIMITS = Limits(rpm=None, tpm=None, concurrent=None)


def limits(**given: int) -> Limits:
    return Limits(**{"rpm": None, "tpm": None, "concurrent": None, **given})


def limited(scope: str, limits: Limits) -> dict[str, Any]:
    """Limits for one scope, none for the other."""
    return {"key_limits": NO_LIMITS, "tenant_limits": NO_LIMITS, scope: limits}


def fresh(state: PublishedState, **fields: Any) -> Caller:
    """A new principal on an emptied server."""
    state.client.flushall()
    state.stamp()
    set_clock(state.client, START_MS)
    return Caller(state, state.principal(**fields), cap=10**6)


def busiest_minute(admitted: list[tuple[int, int]]) -> int:
    """The largest sum of weights in any 60 s; of each admission its moment in ms, not falling, and its weight."""
    return max(
        (
            sum(weight for moment, weight in admitted[first:] if moment < begins + MINUTE_MS)
            for first, (begins, _) in enumerate(admitted)
        ),
        default=0,
    )


def moment_of(now_ms: int, admitted: list[tuple[int, int]]) -> int:
    """When an admission counts: where the server's clock has gone back, at the moment of the one before."""
    return max(now_ms, admitted[-1][0]) if admitted else now_ms


@pytest.mark.usefixtures("clocked_scripts")
@pytest.mark.parametrize("scope", ["key_limits", "tenant_limits"])
@pytest.mark.parametrize("limit", [1, 7, 128, 129, 150])
@EXAMPLES
@given(
    bursts=st.lists(
        st.tuples(
            st.integers(1, 90), st.sampled_from([0, 1, 3, 40, 999, 1000, 20_000, 59_999, 60_000, 61_000, -30_000])
        ),
        min_size=1,
        max_size=6,
    )
)
def test_no_minute_has_more_requests_than_its_limit(
    state: PublishedState, scope: str, limit: int, bursts: list[tuple[int, int]]
):
    caller = fresh(state, **limited(scope, limits(rpm=limit)))
    now_ms = START_MS
    admitted: list[tuple[int, int]] = []
    for count, pause_ms in bursts:
        for number in range(count):
            now_ms += 7 * (number % 3)
            set_clock(state.client, now_ms)
            reply = caller.acquire(demand=TINY)
            if reply[0] == b"admitted":
                admitted.append((moment_of(now_ms, admitted), 1))
            else:
                assert reply[0] == b"requests"
                assert 0 < reply[1] <= MINUTE_MS + 1000
        now_ms += pause_ms
    assert busiest_minute(admitted) <= limit
    assert len(admitted) >= min(limit, sum(count for count, _ in bursts))


@pytest.mark.usefixtures("clocked_scripts")
@pytest.mark.parametrize("limit", [5, 200])
def test_who_waits_as_long_as_told_is_admitted_and_a_millisecond_less_is_not_enough(state: PublishedState, limit: int):
    caller = fresh(state, key_limits=limits(rpm=limit))
    for number in range(limit):
        set_clock(state.client, START_MS + 11 * number)
        assert caller.acquire(demand=TINY)[0] == b"admitted"
        caller.state.client.delete(*caller.slot_names(caller.principal))
    now_ms = START_MS + 11 * limit
    set_clock(state.client, now_ms)
    decision, retry_after_ms, *_ = caller.acquire(demand=TINY)
    assert decision == b"requests"
    set_clock(state.client, now_ms + retry_after_ms - 1)
    assert caller.acquire(demand=TINY)[0] == b"requests"
    set_clock(state.client, now_ms + retry_after_ms)
    assert caller.acquire(demand=TINY)[0] == b"admitted"


@pytest.mark.usefixtures("clocked_scripts")
@EXAMPLES
@example(arrivals=[(0, -5_000), (1, 9_000), (100, 30_000), (200, 30_000)])
@given(
    arrivals=st.lists(
        st.tuples(st.integers(0, 200), st.sampled_from([0, 1, 500, 1000, 9_000, 30_000, 60_000, -5_000])),
        min_size=1,
        max_size=60,
    )
)
def test_no_minute_has_more_estimated_tokens_than_its_limit(state: PublishedState, arrivals: list[tuple[int, int]]):
    caller = fresh(state, key_limits=limits(tpm=300), tenant_limits=NO_LIMITS)
    now_ms = START_MS
    admitted: list[tuple[int, int]] = []
    for tokens, pause_ms in arrivals:
        now_ms += pause_ms
        set_clock(state.client, now_ms)
        decision = caller.acquire(demand=Demand(prompt_bound=0, prompt_estimate=tokens, num_predict=0))[0]
        if decision == b"admitted":
            admitted.append((moment_of(now_ms, admitted), tokens))
        else:
            assert decision == b"tokens"
    assert busiest_minute(admitted) <= 300


@EXAMPLES
@given(
    budget=st.integers(0, 600),
    steps=st.lists(
        st.tuples(st.sampled_from(["acquire", "acquire", "settle", "abandon"]), st.integers(0, 150), st.floats(0, 1)),
        max_size=40,
    ),
    name=st.sampled_from(["budget_day", "budget_month", "budget_total"]),
    scope=st.sampled_from(["key_limits", "tenant_limits"]),
)
def test_used_and_reserved_never_exceed_a_budget(
    state: PublishedState, budget: int, steps: list[tuple[str, int, float]], name: str, scope: str
):
    state.client.flushall()
    state.stamp()
    principal = state.principal(**limited(scope, limits(**{name: budget})))
    caller = Caller(state, principal, cap=10**6)
    running: list[tuple[str, int]] = []
    for number, (step, size, share) in enumerate(steps):
        if step == "acquire":
            demand = Demand(prompt_bound=size, prompt_estimate=0, num_predict=100, output_factor=1 + size % 2)
            reply = caller.acquire(f"lease-{number}", demand)
            if reply[0] == b"admitted":
                running.append((f"lease-{number}", size + demand.output_factor * reply[11]))
            else:
                assert reply[0].decode() == name
        elif running:
            lease_id, reserved = running.pop(size % len(running))
            if step == "settle":
                assert caller.settle(lease_id, tokens=round(share * reserved)) == b"settled"
            else:
                assert caller.abandon(lease_id) == b"abandoned"
        counters = state.budgets(principal)
        assert all(used + held <= budget and min(used, held) >= 0 for used, held in counters.values()), counters
    assert {held for _, held in state.budgets(principal).values()} <= {sum(reserved for _, reserved in running)}


REFUSING = {
    "requests": limits(rpm=1),
    "requests, none at all": limits(rpm=0),
    "tokens": limits(tpm=100),
    "concurrency": limits(concurrent=1),
    "budget_day": limits(budget_day=200),
    "budget_month": limits(budget_month=200),
    "budget_total": limits(budget_total=200),
}


@pytest.mark.parametrize("scope", ["key_limits", "tenant_limits"])
@pytest.mark.parametrize("name", REFUSING)
def test_a_denial_writes_nothing_anywhere(state: PublishedState, name: str, scope: str):
    first = Caller(state, state.principal(key_limits=NO_LIMITS, tenant_limits=NO_LIMITS))
    assert first.acquire("one")[0] == b"admitted"
    refused = state.principal(
        **limited(scope, REFUSING[name]),
        tenant_id=first.principal.tenant_id,
    )
    second = first if scope == "tenant_limits" else Caller(state, refused)
    second.calls = PrincipalCalls(refused, CAP)
    if scope == "key_limits" and name != "requests, none at all":
        assert second.acquire("two")[0] == b"admitted"
    before = everything(state)
    for number in range(3):
        reply = second.acquire(f"denied-{number}", DEMAND)
        assert reply[0].decode() == name.split(",", maxsplit=1)[0]
    assert everything(state) == before


def everything(state: PublishedState) -> dict[bytes, tuple[bytes, bool]]:
    """Every key, as the server would save it, and whether it will expire."""
    return {
        name: (state.client.dump(name), state.client.pttl(name) >= 0) for name in sorted(state.client.scan_iter("*"))
    }


@settings(EXAMPLES, max_examples=150)
@given(
    limit=st.integers(EXACT_INTEGERS - 400, EXACT_INTEGERS - 1),
    used=st.integers(EXACT_INTEGERS - 800, EXACT_INTEGERS - 1),
    prompt=st.integers(0, 120),
    factor=st.sampled_from([1, 2]),
)
def test_budgets_just_below_the_largest_exact_integer_are_exact(
    state: PublishedState, limit: int, used: int, prompt: int, factor: int
):
    caller = fresh(state, key_limits=limits(budget_total=limit), tenant_limits=NO_LIMITS)
    for scope in scopes(caller):
        counted.set_counter(state.client, caller.principal.shard, scope, "total", used=used)
    demand = Demand(prompt_bound=prompt, prompt_estimate=0, num_predict=50, output_factor=factor)
    reply = caller.acquire("one", demand)
    left = limit - used - prompt
    if left < 16 * factor:
        assert (reply[0], bool(reply[2])) == (b"budget_total", True)
        return
    granted = min(50, left // factor)
    assert (reply[0], reply[11]) == (b"admitted", granted)
    reserved = prompt + factor * granted
    assert totals(caller) == [Counter(used, reserved)] * 2
    assert caller.settle("one", tokens=reserved) == b"settled"
    assert totals(caller) == [Counter(used + reserved, 0)] * 2


def scopes(caller: Caller) -> tuple[Scope, Scope]:
    """Of the key and of the tenant."""
    return keyspace.key_scope(caller.principal.key_id), keyspace.tenant_scope(caller.principal.tenant_id)


def totals(caller: Caller) -> list[Counter]:
    """The counters of all time, of the key and of the tenant."""
    return [counted.counter(caller.state.client, caller.principal.shard, scope, "total") for scope in scopes(caller)]


def broken_counter(caller: Caller, scope: Scope, position: int, number: float) -> None:
    """Puts a number in place of one of the counters of a scope."""
    name = keyspace.counters(caller.principal.shard, scope)
    caller.state.client.setrange(name, 8 * position, struct.pack("<d", number))


@pytest.mark.parametrize("above", [0, 1, 2, 3, 10_001, 2**62 - 2**53])
def test_a_counter_beyond_exact_integers_is_refused_where_there_is_a_limit(state: PublishedState, above: int):
    caller = Caller(state, state.principal(key_limits=limits(budget_total=EXACT_INTEGERS - 1), tenant_limits=NO_LIMITS))
    for scope in scopes(caller):
        counted.set_counter(state.client, caller.principal.shard, scope, "total", used=EXACT_INTEGERS + above)
    before = everything(state)
    assert caller.acquire()[0] == b"budget_total"
    assert everything(state) == before


@pytest.mark.usefixtures("clocked_scripts")
@pytest.mark.parametrize("limits_before", [[200], [5, 200], [None, 5, None]])
def test_a_limit_that_is_lowered_to_exact_moments_counts_what_was_admitted_before(
    state: PublishedState, limits_before: list[int | None]
):
    caller = fresh(state, key_limits=NO_LIMITS, tenant_limits=NO_LIMITS)

    def limit(rpm: int | None) -> None:
        own = msgspec.structs.replace(caller.principal, key_limits=Limits(rpm=rpm, tpm=None, concurrent=None))
        caller.calls = PrincipalCalls(own, 10**6)

    for number, rpm in enumerate(limits_before):
        limit(rpm)
        set_clock(state.client, START_MS + 700 * number)
        assert [caller.acquire(demand=TINY)[0] for _ in range(2)] == [b"admitted"] * 2
    admitted, now_ms = 2 * len(limits_before), START_MS + 700 * len(limits_before)
    limit(3)
    set_clock(state.client, now_ms)
    room = max(0, 3 - admitted)
    assert [caller.acquire(demand=TINY)[0] for _ in range(4)] == [b"admitted"] * room + [b"requests"] * (4 - room)
    set_clock(state.client, START_MS + MINUTE_MS - 1)
    assert caller.acquire(demand=TINY)[0] == b"requests"
    # The second in which the last of them was admitted counts whole.
    set_clock(state.client, now_ms + MINUTE_MS + 1000)
    assert [caller.acquire(demand=TINY)[0] for _ in range(4)] == [b"admitted"] * 3 + [b"requests"]


@pytest.mark.usefixtures("clocked_scripts")
@pytest.mark.parametrize("back_ms", [1, 1_000, 61_000, 86_400_000])
def test_a_clock_that_goes_back_opens_no_second_minute(state: PublishedState, back_ms: int):
    caller = fresh(state, key_limits=limits(rpm=3), tenant_limits=limits(rpm=200))
    admitted = [caller.acquire(demand=TINY)[0] for _ in range(3)]
    assert admitted == [b"admitted"] * 3
    for now_ms in (START_MS - back_ms, START_MS - back_ms + 500, START_MS + MINUTE_MS - 1):
        set_clock(state.client, now_ms)
        assert caller.acquire(demand=TINY)[0] == b"requests"
    set_clock(state.client, START_MS + MINUTE_MS)
    assert caller.acquire(demand=TINY)[0] == b"admitted"


def test_a_lost_reply_repeated_has_one_effect(state: PublishedState):
    caller = Caller(state, state.principal())
    call = caller.calls.acquire(caller.incarnation, LeaseId("one"), DEMAND, CRASHED)
    run(state, call)
    before = everything(state)
    for _ in range(3):
        assert decision_of(run(state, call)) == b"admitted"
    assert everything(state) == before
    caller.settle("one")
    before = everything(state)
    assert [caller.settle("one") for _ in range(3)] == [b"again"] * 3
    assert everything(state) == before


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf, float(2**54), float(NEARLY_64_BITS)])
# `used` and `reserved` in total, of the day, of the month.
@pytest.mark.parametrize("position", [0, 1, 3, 4, 9, 10])
@pytest.mark.parametrize("of_tenant", [False, True])
def test_a_counter_that_cannot_be_added_to_is_an_error_and_nothing_is_written(
    state: PublishedState, broken: float, position: int, of_tenant: bool
):
    caller = fresh(state, key_limits=NO_LIMITS, tenant_limits=NO_LIMITS)
    caller.acquire("before")
    broken_counter(caller, scopes(caller)[of_tenant], position, broken)
    before = everything(state)
    with pytest.raises(redis_client.ResponseError, match="overflows or is not a number"):
        caller.acquire("one")
    with pytest.raises(redis_client.ResponseError, match="overflows or is not a number"):
        caller.settle("before", tokens=3)
    assert everything(state) == before


@pytest.mark.parametrize("position", [0, 1])
def test_a_limited_counter_that_says_no_number_denies(state: PublishedState, position: int):
    caller = Caller(state, state.principal(key_limits=limits(budget_total=1000), tenant_limits=NO_LIMITS))
    caller.acquire("before")
    broken_counter(caller, scopes(caller)[0], position, math.nan)
    before = everything(state)
    assert caller.acquire("one")[0] == b"budget_total"
    assert everything(state) == before


@pytest.mark.parametrize("raw", [b"", b"12", b"\0" * 112, b"\0" * 169])
@pytest.mark.parametrize("of_tenant", [False, True])
def test_counters_of_another_layout_are_an_error_and_nothing_is_written(
    state: PublishedState, raw: bytes, of_tenant: bool
):
    caller = fresh(state, key_limits=NO_LIMITS, tenant_limits=NO_LIMITS)
    state.client.set(keyspace.counters(caller.principal.shard, scopes(caller)[of_tenant]), raw)
    before = everything(state)
    with pytest.raises(redis_client.ResponseError, match="not of this layout"):
        caller.acquire("one")
    assert everything(state) == before


@pytest.mark.usefixtures("clocked_scripts")
def test_a_window_that_was_lost_without_its_head_forgets_and_goes_on(state: PublishedState):
    caller = fresh(state, key_limits=limits(rpm=200, tpm=1000), tenant_limits=limits(rpm=100))
    for second in range(3):
        set_clock(state.client, START_MS + 1000 * second)
        caller.acquire(demand=Demand(prompt_bound=1, prompt_estimate=0, num_predict=100))
    for scope in scopes(caller):
        state.client.delete(keyspace.window(caller.principal.shard, scope))
    # The second that was current is in the head.
    for second, requests in ((3, 2), (4, 3), (63, 3), (64, 3), (65, 3)):
        set_clock(state.client, START_MS + 1000 * second)
        reply = caller.acquire(demand=Demand(prompt_bound=1, prompt_estimate=0, num_predict=100))
        assert (reply[0], reply[3:7]) == (b"admitted", [requests, 100 * requests] * 2)


@pytest.mark.usefixtures("clocked_scripts")
def test_a_window_outlives_its_latest_admission_by_two_minutes(state: PublishedState):
    caller = fresh(state, key_limits=NO_LIMITS, tenant_limits=NO_LIMITS)
    for second in (0, 1, 29, 89):
        set_clock(state.client, START_MS + 1000 * second)
        caller.acquire(demand=TINY)
        for scope in scopes(caller):
            # The server's own clock stands still meanwhile: a minute that the test's has gained may have gone.
            assert state.client.ttl(keyspace.window(caller.principal.shard, scope)) >= 120 + 60 - 1
