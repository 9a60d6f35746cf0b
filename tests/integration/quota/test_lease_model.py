"""The scripts against a model in memory: any order of operations, with leases expiring in between."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from dataplane.values import Principal
from tests.fakes.published_state import PublishedState
from tests.integration.quota.caller import Caller

pytestmark = pytest.mark.redis

LEASES = st.integers(0, 9).map(lambda number: f"lease-{number}")
KEYS = st.integers(0, 1)
KEY_LIMIT, TENANT_LIMIT = 2, 3


class LeaseMachine(RuleBasedStateMachine):
    """Two keys of one tenant share ten lease ids."""

    published: PublishedState

    def __init__(self) -> None:
        super().__init__()
        state = self.published
        state.client.flushall()
        state.stamp()
        one = state.principal(concurrent=KEY_LIMIT, tenant_concurrent=TENANT_LIMIT)
        two = state.principal(concurrent=KEY_LIMIT, tenant_concurrent=TENANT_LIMIT, tenant_id=one.tenant_id)
        self.callers = [Caller(state, one, cap=10_000), Caller(state, two, cap=10_000)]
        self.open: dict[str, int] = {}  # lease → its key, while it holds a slot
        self.expired: dict[str, int] = {}
        self.over: set[str] = set()
        self.events = 0

    @rule(lease_id=LEASES, key=KEYS)
    def acquire(self, lease_id: str, key: int) -> None:
        if lease_id in self.open:
            expected = b"admitted" if self.open[lease_id] == key else b"closed"
        elif lease_id in self.over or lease_id in self.expired:
            expected = b"closed"
        elif list(self.open.values()).count(key) >= KEY_LIMIT or len(self.open) >= TENANT_LIMIT:
            expected = b"concurrency"
        else:
            expected = b"admitted"
            self.open[lease_id] = key
        assert self.callers[key].acquire(lease_id)[0] == expected

    @rule(lease_id=LEASES, key=KEYS)
    def settle(self, lease_id: str, key: int) -> None:
        key = self.open.get(lease_id, self.expired.get(lease_id, key))
        if lease_id in self.over:
            expected = b"again"
        else:
            expected = b"settled" if lease_id in self.open or lease_id in self.expired else b"charged"
            self.events += 1
        assert self.callers[key].settle(lease_id) == expected
        self._close(lease_id)

    @rule(lease_id=LEASES, key=KEYS)
    def abandon(self, lease_id: str, key: int) -> None:
        key = self.open.get(lease_id, self.expired.get(lease_id, key))
        expected = b"settled" if lease_id in self.over else b"abandoned"
        assert self.callers[key].abandon(lease_id) == expected
        self._close(lease_id)

    @rule(lease_id=LEASES)
    def expire(self, lease_id: str) -> None:
        if lease_id in self.open:
            key = self.expired[lease_id] = self.open.pop(lease_id)
            self.callers[key].expire(lease_id)

    @rule(lease_id=LEASES, key=KEYS)
    def renew(self, lease_id: str, key: int) -> None:
        key = self.open.get(lease_id, self.expired.get(lease_id, key))
        cut = [] if lease_id in self.open else [lease_id.encode(), b"lost"]
        assert self.callers[key].renew(lease_id) == [b"renewed", *cut]

    @invariant()
    def slots_and_events_are_those_of_the_model(self) -> None:
        seconds, _ = self.published.client.time()
        for key, caller in enumerate(self.callers):
            held = list(self.open.values()).count(key)
            assert self._alive(caller.principal, seconds * 1000) == (held, len(self.open))
        assert len(self.published.usage(self.callers[0].principal)) == self.events

    def _alive(self, principal: Principal, now_ms: int) -> tuple[Any, ...]:
        key, tenant = Caller.slot_names(principal)
        return tuple(self.published.client.zcount(name, now_ms, "+inf") for name in (key, tenant))

    def _close(self, lease_id: str) -> None:
        self.open.pop(lease_id, None)
        self.expired.pop(lease_id, None)
        self.over.add(lease_id)


def test_any_order_of_operations_agrees_with_the_model(state: PublishedState):
    machine = type("Machine", (LeaseMachine,), {"published": state})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
