"""Repeated refusals are counted into few events."""

from __future__ import annotations

import pytest

from dataplane.quota.refusals import WINDOW_S, CollapsedRefusals
from dataplane.values import Grant, Lease, Limits, Principal
from shared.keyspace import KeyId, Shard, TenantId
from shared.records import UsageEvent
from tests.fakes.manual_clock import ManualClock

LIMITS = Limits(rpm=None, tpm=None, concurrent=None)


class Taken:
    """Settlements that only remember."""

    def __init__(self) -> None:
        self.events: list[UsageEvent] = []
        self.is_stalled = False

    def settle(self, lease: Lease, principal: Principal, event: UsageEvent) -> None:
        raise AssertionError("a refusal has no lease")

    def append(self, principal: Principal, event: UsageEvent) -> None:
        assert principal.key_id == "k"
        self.events.append(event)


@pytest.fixture
def taken() -> Taken:
    return Taken()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def refusals(taken: Taken, clock: ManualClock) -> CollapsedRefusals:
    return CollapsedRefusals(settlements=taken, clock=clock)


PRINCIPAL = Principal(
    key_id=KeyId("k"),
    key_prefix="nz_000000000",
    tenant_id=TenantId("t"),
    tenant_name="acme",
    shard=Shard("s00"),
    key_version=1,
    tenant_version=1,
    expires_at_ms=0,
    key_limits=LIMITS,
    tenant_limits=LIMITS,
    grant=Grant(all_models=True),
    prompt_log_days=None,
)


def refusal(number: int, *, reason: str = "concurrency", endpoint: str = "/api/chat") -> UsageEvent:
    return UsageEvent(
        event_id=f"e{number}",
        request_id=f"e{number}",
        tenant_id=TenantId("t"),
        key_id=KeyId("k"),
        day="20261121",
        created_at_ms=number,
        dialect="ollama",
        endpoint=endpoint,
        outcome="refused",
        status=429,
        refusal=reason,
    )


def test_first_refusal_is_handed_on_at_once(refusals: CollapsedRefusals, taken: Taken):
    refusals.add(PRINCIPAL, refusal(1))
    assert taken.events == [refusal(1)]


def test_flood_becomes_two_events_per_window_and_every_refusal_counts(
    refusals: CollapsedRefusals, taken: Taken, clock: ManualClock
):
    for number in range(5000):
        refusals.add(PRINCIPAL, refusal(number))
    clock.now_s += WINDOW_S
    refusals.flush(older_than_s=WINDOW_S)
    assert [event.occurrences for event in taken.events] == [1, 4999]
    assert len({event.event_id for event in taken.events}) == 2


def test_window_that_is_not_over_is_kept(refusals: CollapsedRefusals, taken: Taken, clock: ManualClock):
    refusals.add(PRINCIPAL, refusal(1))
    refusals.add(PRINCIPAL, refusal(2))
    clock.now_s += WINDOW_S - 1
    refusals.flush(older_than_s=WINDOW_S)
    assert len(taken.events) == 1
    refusals.flush()
    assert len(taken.events) == 2


def test_kinds_are_counted_apart(refusals: CollapsedRefusals, taken: Taken):
    refusals.add(PRINCIPAL, refusal(1))
    refusals.add(PRINCIPAL, refusal(2, reason="model_not_allowed"))
    refusals.add(PRINCIPAL, refusal(3, endpoint="/v1/models"))
    assert len(taken.events) == 3


def test_next_window_begins_with_a_row_again(refusals: CollapsedRefusals, taken: Taken, clock: ManualClock):
    refusals.add(PRINCIPAL, refusal(1))
    clock.now_s += WINDOW_S
    refusals.flush(older_than_s=WINDOW_S)
    refusals.add(PRINCIPAL, refusal(2))
    assert [event.event_id for event in taken.events] == ["e1", "e2"]


def test_nothing_is_handed_on_while_redis_is_away(refusals: CollapsedRefusals, taken: Taken):
    taken.is_stalled = True
    for number in range(7):
        refusals.add(PRINCIPAL, refusal(number))
    assert taken.events == []
    taken.is_stalled = False
    refusals.flush()
    assert [event.occurrences for event in taken.events] == [7]
