"""How much callers may ask for."""

import contextlib

import pytest

from controlplane.core.roles import Caller, Role, parse_operator_certificates
from controlplane.rpc.bounds import (
    BURST_S,
    MAX_CALLS_OF_ALL,
    MAX_CALLS_OF_ONE,
    MAX_PATIENTLY_REFUSED,
    CallBounds,
)
from controlplane.rpc.server import MAX_CONCURRENT_CALLS

RATE = 10
PEOPLE = [Caller(name=f"caller-{number}", role=Role.ADMIN) for number in range(10)]
PLANE = Caller(name="dataplane", role=Role.DATAPLANE)


class Clock:
    now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s

    def unix_s(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def bounds(clock) -> CallBounds:
    return CallBounds(clock=clock, calls_per_s=RATE)


def test_a_caller_has_a_burst_and_then_its_rate(bounds, clock):
    assert sum(bounds.may_call(PEOPLE[0]) for _ in range(1000)) == pytest.approx(RATE * BURST_S, abs=1)
    clock.now_s += 1
    assert sum(bounds.may_call(PEOPLE[0]) for _ in range(1000)) == pytest.approx(RATE, abs=1)


def test_one_caller_takes_nothing_from_another_nor_from_data_planes(bounds):
    while bounds.may_call(PEOPLE[0]):
        pass
    assert bounds.may_call(PEOPLE[1])
    assert all(bounds.may_call(PLANE) for _ in range(10_000))


def test_calls_at_the_same_time_are_bounded_for_one_caller_and_for_all(clock):
    bounds = CallBounds(clock=clock, calls_per_s=1_000_000)
    with contextlib.ExitStack() as running:
        started = 0
        for caller in PEOPLE:
            of_one = 0
            while bounds.may_call(caller):
                running.enter_context(bounds.running(caller))
                of_one += 1
            assert of_one <= MAX_CALLS_OF_ONE
            started += of_one
        assert started == MAX_CALLS_OF_ALL
        assert bounds.may_call(PLANE)
        with bounds.running(PLANE):
            assert not bounds.may_call(PEOPLE[0])
    assert bounds.may_call(PEOPLE[0])


def test_only_so_many_refusals_are_patient(bounds):
    with contextlib.ExitStack() as refusing:
        patient = [refusing.enter_context(bounds.refusing()) for _ in range(MAX_PATIENTLY_REFUSED + 3)]
        assert patient.count(True) == MAX_PATIENTLY_REFUSED
        assert not patient[-1]
    with bounds.refusing() as is_patient:
        assert is_patient


def test_all_bounds_together_leave_most_of_the_server_to_data_planes():
    assert 2 * (MAX_CALLS_OF_ALL + MAX_PATIENTLY_REFUSED) < MAX_CONCURRENT_CALLS


@pytest.mark.parametrize(
    "text", ["x", "x:", ":viewer", "x:root", "a:viewer,a:admin", f"{'x' * 254}:viewer", "a\x00b:viewer"]
)
def test_a_faulty_list_of_certificates_is_refused(text):
    with pytest.raises(ValueError, match=r"entry \d must|entry \d names"):
        parse_operator_certificates(text)


def test_an_identity_may_be_a_uri():
    (only,) = parse_operator_certificates("spiffe://example.org/plane:dataplane")
    assert (only.identity, only.role) == ("spiffe://example.org/plane", Role.DATAPLANE)
