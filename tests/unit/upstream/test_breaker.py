"""The circuit breaker's states."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.upstream.breaker import FAILURES, OPEN_S, Breaker, State
from dataplane.upstream.faults import Blame
from tests.fakes.manual_clock import ManualClock


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def breaker(clock):
    return Breaker(clock)


def fail(breaker: Breaker, blame: Blame = Blame.UNREACHABLE, tenant: str = "a", times: int = 1) -> None:
    for _ in range(times):
        given_pass = breaker.enter(tenant)
        assert given_pass is not None
        breaker.failed(given_pass, blame, tenant)


def succeed(breaker: Breaker, tenant: str = "a") -> None:
    given_pass = breaker.enter(tenant)
    assert given_pass is not None
    breaker.succeeded(given_pass)


def opened(breaker: Breaker) -> None:
    fail(breaker, times=FAILURES)
    assert not breaker.allows()


def test_five_failures_in_a_row_open_it(breaker):
    fail(breaker, times=FAILURES - 1)
    assert breaker.allows()
    fail(breaker)
    assert not breaker.allows()
    assert breaker.enter() is None
    assert breaker.retry_after_s() == OPEN_S


def test_a_success_in_between_starts_the_count_anew(breaker):
    fail(breaker, times=FAILURES - 1)
    succeed(breaker)
    fail(breaker, times=FAILURES - 1)
    assert breaker.state == State.CLOSED


def test_nothing_passes_for_thirty_seconds_and_then_one_probe(breaker, clock):
    opened(breaker)
    clock.now_s += OPEN_S - 0.5
    assert breaker.enter() is None
    assert breaker.retry_after_s() == 1
    clock.now_s += 0.5
    assert breaker.state == State.HALF_OPEN
    assert breaker.allows()
    assert breaker.enter() is not None
    assert breaker.enter() is None
    assert not breaker.allows()


def test_a_successful_probe_closes_it(breaker, clock):
    opened(breaker)
    clock.now_s += OPEN_S
    succeed(breaker)
    assert breaker.state == State.CLOSED
    fail(breaker, times=FAILURES - 1)
    assert breaker.state == State.CLOSED


def test_a_failed_probe_opens_it_again_for_thirty_seconds(breaker, clock):
    opened(breaker)
    clock.now_s += OPEN_S
    fail(breaker)
    assert breaker.state == State.OPEN
    clock.now_s += OPEN_S - 0.5
    assert breaker.enter() is None
    clock.now_s += 0.5
    assert breaker.enter() is not None


def test_a_probe_that_says_nothing_leaves_room_for_the_next_probe(breaker, clock):
    opened(breaker)
    clock.now_s += OPEN_S
    fail(breaker, Blame.NONE)
    assert breaker.state == State.HALF_OPEN
    succeed(breaker)
    assert breaker.state == State.CLOSED


def test_cancels_refusals_and_deadlines_never_open_it(breaker):
    fail(breaker, Blame.NONE, times=100)
    assert breaker.state == State.CLOSED


def test_bad_replies_of_one_tenant_never_open_it(breaker):
    fail(breaker, Blame.BAD_REPLY, tenant="poisonous", times=100)
    assert breaker.allows("innocent")
    fail(breaker, Blame.UNREACHABLE, times=FAILURES - 1)
    assert breaker.state == State.CLOSED


def test_bad_replies_of_two_tenants_open_it(breaker):
    fail(breaker, Blame.BAD_REPLY, tenant="a", times=FAILURES - 1)
    fail(breaker, Blame.BAD_REPLY, tenant="b")
    assert breaker.state == State.OPEN


def test_a_bad_probe_bars_its_own_tenant_only(breaker, clock):
    opened(breaker)
    clock.now_s += OPEN_S
    fail(breaker, Blame.BAD_REPLY, tenant="poisonous")
    assert not breaker.allows("poisonous")
    assert breaker.enter("poisonous") is None
    assert breaker.allows("innocent")
    succeed(breaker, "innocent")
    assert breaker.allows("poisonous")


def test_a_second_tenants_bad_probe_opens_it_again(breaker, clock):
    opened(breaker)
    clock.now_s += OPEN_S
    fail(breaker, Blame.BAD_REPLY, tenant="a")
    fail(breaker, Blame.BAD_REPLY, tenant="b")
    assert not breaker.allows("c")
    clock.now_s += OPEN_S
    assert breaker.allows("a")


def test_a_barred_tenant_may_probe_after_thirty_seconds(breaker, clock):
    opened(breaker)
    clock.now_s += OPEN_S
    fail(breaker, Blame.BAD_REPLY, tenant="a")
    clock.now_s += OPEN_S
    succeed(breaker, "a")
    assert breaker.state == State.CLOSED


def test_what_began_before_a_change_of_state_does_not_count_afterwards(breaker, clock):
    old = breaker.enter()
    opened(breaker)
    breaker.succeeded(old)
    assert breaker.state == State.OPEN
    clock.now_s += OPEN_S
    probe = breaker.enter()
    breaker.failed(old, Blame.UNREACHABLE)
    assert breaker.enter() is None
    breaker.succeeded(probe)
    assert breaker.state == State.CLOSED


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["succeed", *Blame]), st.sampled_from("abc"), st.floats(min_value=0, max_value=2 * OPEN_S)
        )
    )
)
def test_it_never_has_two_probes_and_never_shuts_for_good(steps):
    clock = ManualClock()
    breaker = Breaker(clock)
    for what, tenant, pause_s in steps:
        given_pass = breaker.enter(tenant)
        if breaker.state == State.HALF_OPEN and given_pass is not None:
            assert all(breaker.enter(other) is None for other in "abc")
        if given_pass is not None:
            if isinstance(what, Blame):
                breaker.failed(given_pass, what, tenant)
            else:
                breaker.succeeded(given_pass)
        clock.now_s += pause_s
    clock.now_s += OPEN_S
    assert breaker.enter("a") is not None


def test_each_change_of_state_is_told_once(clock):
    told: list[State] = []
    breaker = Breaker(clock, told.append)
    succeed(breaker)
    fail(breaker, times=FAILURES)
    assert told == [State.OPEN]
    clock.now_s += OPEN_S
    fail(breaker)
    clock.now_s += OPEN_S
    fail(breaker, Blame.BAD_REPLY)
    clock.now_s += OPEN_S
    fail(breaker, Blame.NONE)
    succeed(breaker)
    succeed(breaker)
    probes = [State.HALF_OPEN, State.OPEN, State.HALF_OPEN, State.OPEN, State.HALF_OPEN, State.HALF_OPEN]
    assert told == [State.OPEN, *probes, State.CLOSED]
