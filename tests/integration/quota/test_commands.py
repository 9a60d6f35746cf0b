"""How many commands a script issues: what an admission costs is mostly their number, and they can be counted.

These are the numbers of a server with every limit set for key and tenant, whoever else uses the machine. One more
command is one more microsecond of the one core that Redis has: raise a number only with a reason in ARCHITECTURE.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dataplane.quota.calls import PrincipalCalls
from dataplane.values import Limits
from tests.fakes.published_state import PublishedState
from tests.integration.quota.caller import Caller, run
from tests.integration.quota.clock import set_clock

pytestmark = [pytest.mark.redis, pytest.mark.usefixtures("clocked_scripts")]

NOW_MS = 1_795_305_570_000
BUDGETS = {"budget_day": 10**6, "budget_month": 10**6, "budget_total": 10**6}
LIMITS = Limits(rpm=10_000, tpm=10**6, concurrent=100, **BUDGETS)
EXACT = Limits(rpm=100, tpm=10**6, concurrent=100, **BUDGETS)
# The clock of the test is read by two commands where a server's takes one.
CLOCK = 1


@pytest.fixture
def caller(state: PublishedState) -> Caller:
    """One whose windows have been running for a while."""
    caller = Caller(state, state.principal(key_limits=LIMITS, tenant_limits=LIMITS), cap=100)
    at(caller, 0)
    caller.acquire("before")
    return caller


def at(caller: Caller, ms: int) -> None:
    set_clock(caller.state.client, NOW_MS + ms)


def commands(caller: Caller, call: Callable[[], object]) -> int:
    """How many commands a call of a script issues in the server."""
    client = caller.state.client
    client.config_resetstat()
    call()
    counted = {name: entry["calls"] for name, entry in client.info("commandstats").items()}
    own = {"cmdstat_fcall", "cmdstat_config|resetstat", "cmdstat_info"}
    return sum(calls for name, calls in counted.items() if name not in own)


def decided(caller: Caller, expected: bytes) -> Callable[[], None]:
    def call() -> None:
        assert caller.acquire("one")[0] == expected

    return call


def settled(caller: Caller, lease_id: str) -> Callable[[], object]:
    """A settlement of which nothing is left to do but to send it."""
    call = caller.calls.settle(caller.incarnation, caller.lease(lease_id), b"{}", 70)
    return lambda: run(caller.state, call)


def test_an_admission_takes_11_commands(caller: Caller):
    assert commands(caller, decided(caller, b"admitted")) - CLOCK <= 11


def test_an_admission_by_exact_moments_takes_one_more_for_each_such_limit(state: PublishedState):
    caller = Caller(state, state.principal(key_limits=EXACT, tenant_limits=EXACT), cap=100)
    at(caller, 0)
    caller.acquire("before")
    assert commands(caller, decided(caller, b"admitted")) - CLOCK <= 11 + 2


def test_the_first_admission_of_a_second_takes_four_more_and_of_a_minute_six(caller: Caller):
    at(caller, 1000)
    assert commands(caller, lambda: caller.acquire("of a second")) - CLOCK <= 11 + 4
    at(caller, 31_000)
    # The buckets are a ring: its end and its beginning are two pieces.
    assert commands(caller, lambda: caller.acquire("of a minute")) - CLOCK <= 11 + 6 + 4
    at(caller, 32_000)
    assert commands(caller, decided(caller, b"admitted")) - CLOCK <= 11 + 4


def test_a_denial_by_exact_moments_takes_six_commands(caller: Caller):
    caller.calls = PrincipalCalls(caller.state.principal(key_limits=EXACT, tenant_limits=EXACT), 100)
    for number in range(100):
        caller.acquire(f"before {number}")
    assert commands(caller, decided(caller, b"requests")) - CLOCK <= 6


def test_a_denial_by_a_budget_takes_six_commands_and_one_for_each_scope_without_counters(caller: Caller):
    exhausted = Limits(rpm=10_000, tpm=10**6, concurrent=100, **{**BUDGETS, "budget_total": 1})
    caller.calls = PrincipalCalls(caller.state.principal(key_limits=LIMITS, tenant_limits=exhausted), 100)
    assert commands(caller, decided(caller, b"budget_total")) - CLOCK <= 6 + 2


def test_a_settlement_takes_seven_commands(caller: Caller):
    caller.acquire("one")
    settlement = settled(caller, "one")
    assert commands(caller, settlement) <= 7


def test_a_settlement_that_comes_in_a_later_second_takes_four_more(caller: Caller):
    caller.acquire("one")
    at(caller, 2000)
    caller.acquire("two")
    settlement = settled(caller, "one")
    assert commands(caller, settlement) <= 7 + 4


def test_a_repeated_settlement_takes_one_command(caller: Caller):
    caller.acquire("one")
    settlement = settled(caller, "one")
    settlement()
    assert commands(caller, settlement) <= 1


def test_an_abandonment_takes_six_commands(caller: Caller):
    caller.acquire("one")
    assert commands(caller, lambda: caller.abandon("one")) <= 6


def test_a_renewal_takes_two_commands_and_seven_for_each_lease(state: PublishedState):
    caller = Caller(state, state.principal(key_limits=LIMITS, tenant_limits=LIMITS), cap=100)
    seconds, microseconds = state.client.time()
    at(caller, seconds * 1000 + microseconds // 1000 - NOW_MS)
    for lease_id in ("one", "two", "three"):
        caller.acquire(lease_id)

    def renew() -> None:
        assert caller.renew("one", "two", "three") == [b"renewed"]

    assert commands(caller, renew) <= 2 + 3 * 7


def test_what_needs_no_lease_takes_four_commands(caller: Caller):
    def check() -> None:
        assert caller.check() == b"allowed"

    assert commands(caller, check) <= 4
