"""Everything that Redis can do to a gateway under load: nobody is served unchecked, and the books agree afterwards."""

from __future__ import annotations

import contextlib
import shutil
import signal
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.accounts import assert_invariants, book, budgets
from tests.e2e.crowd import Answer, Traffic, chat
from tests.e2e.harness import ADMISSION_DEADLINE_S, Gateway, eventually

# How long a fault lasts, and how long it may take until it is felt; both include other people's use of the machine.
FAULT_S = 2.5
FELT_WITHIN_S = 2 * ADMISSION_DEADLINE_S
# Whoever waited longer than for one deadline would wait for as long as Redis is away.
DENIED_WITHIN_S = 4 * ADMISSION_DEADLINE_S
SERVED_AGAIN_WITHIN_S = 60.0
LOADED_WITHIN_S = 15.0


@contextlib.contextmanager
def stopped(gateway: Gateway) -> Iterator[None]:
    gateway.signal_server("redis", signal.SIGSTOP)
    try:
        yield
    finally:
        gateway.signal_server("redis", signal.SIGCONT)


@contextlib.contextmanager
def killed(gateway: Gateway) -> Iterator[None]:
    gateway.signal_server("redis", signal.SIGKILL)
    try:
        yield
    finally:
        gateway.start_again("redis.cmd")


@contextlib.contextmanager
def replaced_by_an_old_snapshot(gateway: Gateway) -> Iterator[None]:
    data, snapshot = gateway.state / "redis", gateway.state / "redis-snapshot"
    gateway.signal_server("redis", signal.SIGKILL)
    try:
        yield
    finally:
        shutil.rmtree(data)
        snapshot.rename(data)
        gateway.start_again("redis.cmd")


@contextlib.contextmanager
def replaced_by_an_empty_server(gateway: Gateway) -> Iterator[None]:
    gateway.signal_server("redis", signal.SIGKILL)
    try:
        yield
    finally:
        shutil.rmtree(gateway.state / "redis" / "appendonlydir")
        gateway.start_again("redis.cmd")


@contextlib.contextmanager
def out_of_memory(gateway: Gateway) -> Iterator[None]:
    before = str(gateway.redis.config_get("maxmemory")["maxmemory"])
    gateway.redis.config_set("maxmemory", 100_000)
    try:
        yield
    finally:
        gateway.redis.config_set("maxmemory", before)


@contextlib.contextmanager
def read_only(gateway: Gateway) -> Iterator[None]:
    gateway.redis.replicaof("127.0.0.1", "1")
    try:
        yield
    finally:
        gateway.redis.replicaof("NO", "ONE")


@contextlib.contextmanager
def paused(gateway: Gateway) -> Iterator[None]:
    # A server that pauses does not hear of an end: the pause outlasts whatever is judged as its time.
    pause_s = FAULT_S + FELT_WITHIN_S + 1.0
    gateway.redis.client_pause(int(1000 * pause_s))
    until_s = time.monotonic() + pause_s
    yield
    eventually(lambda: time.monotonic() > until_s)


OUTAGES = {
    "stopped": stopped,
    "paused": paused,
    "out of memory": out_of_memory,
    "read-only": read_only,
    "killed": killed,
    "emptied": replaced_by_an_empty_server,
    "old snapshot": replaced_by_an_old_snapshot,
}


@pytest.fixture
def key(fleet, fleet_mock) -> str:
    fleet_mock.reset()
    # Requests for this model take about two seconds: some are always in flight when a fault begins, and end in it.
    fleet_mock.script({"match": {"model": "qwen3:8b"}, "times": None, "fault": {"kind": "slow", "per_record_ms": 80}})
    tenant = f"faults-{uuid.uuid4().hex[:8]}"
    fleet.tenant(tenant, budget_total=1_000_000_000)
    return fleet.key(tenant)


class Load:
    """Short requests on every replica, and long ones beside them."""

    def __init__(self, fleet: Gateway, key: str) -> None:
        self.short = Traffic(fleet.urls, key, clients=8, rest_s=0.1)
        self.long = Traffic(fleet.urls, key, clients=4, rest_s=0.1, body=lambda number: chat(number, model="qwen3:8b"))

    @property
    def answers(self) -> list[Answer]:
        return self.short.answers + self.long.answers

    def served_since(self, moment_s: float, count: int = 24) -> bool:
        """Whether the last answers, as many as reach every replica, are all good."""
        answers = [answer for answer in self.short.answers if answer.asked_at_s >= moment_s]
        return len(answers) >= count and all(answer.status == 200 for answer in answers[-count:])


@contextlib.contextmanager
def load_on(fleet: Gateway, key: str) -> Iterator[Load]:
    load = Load(fleet, key)
    with load.short, load.long:
        eventually(lambda: load.served_since(0) and len(load.long.answers) >= 2, what="traffic")
        yield load


def assert_used_is_not_below_the_ledger(fleet: Gateway) -> None:
    # The ledger first: what it learns in between was counted before.
    ledger, counted = book(fleet), budgets(fleet)
    below = {account: (counted.get(account), used) for account, used in ledger.derived.items() if used}
    assert not [account for account, (budget, used) in below.items() if budget is None or budget.used < used]


def arrivals(mock: Any, start_s: float, end_s: float) -> list[Any]:
    return [request for request in mock.requests() if start_s <= request["arrived_at_s"] <= end_s]


@pytest.mark.parametrize("outage", OUTAGES)
def test_an_outage_of_redis_denies_in_time_and_the_books_agree_afterwards(fleet, fleet_mock, key, outage):
    with load_on(fleet, key) as load:
        if outage == "old snapshot":
            shutil.copytree(fleet.state / "redis", fleet.state / "redis-snapshot")
            copied_at_s = time.monotonic()
            eventually(lambda: load.served_since(copied_at_s, 48), what="what the snapshot does not know")
        with OUTAGES[outage](fleet):
            felt_at_s = time.monotonic() + FELT_WITHIN_S
            eventually(lambda: time.monotonic() > felt_at_s + FAULT_S)
            ended_at_s = time.monotonic()
        eventually(lambda: load.served_since(ended_at_s), timeout_s=SERVED_AGAIN_WITHIN_S, what="service")
        assert_used_is_not_below_the_ledger(fleet)
    denied = [answer for answer in load.answers if felt_at_s <= answer.asked_at_s <= ended_at_s - DENIED_WITHIN_S / 2]
    assert len(denied) > 20
    assert {answer.status for answer in denied} == {503}
    assert all(answer.retry_after_s >= 1 for answer in denied)
    assert max(answer.took_s for answer in denied) < DENIED_WITHIN_S
    assert not arrivals(fleet_mock, felt_at_s, ended_at_s)
    assert {answer.status for answer in load.answers} == {200, 503}
    assert_invariants(fleet, [fleet_mock], load.answers, may_fail={503})


def test_an_emptied_redis_denies_until_it_is_rebuilt(fleet, fleet_mock, key):
    with load_on(fleet, key) as load:
        fleet.redis.flushall()
        emptied_at_s = time.monotonic()
        eventually(lambda: load.served_since(emptied_at_s), timeout_s=SERVED_AGAIN_WITHIN_S, what="service")
        assert_used_is_not_below_the_ledger(fleet)
    assert {answer.status for answer in load.answers} <= {200, 503}
    assert_invariants(fleet, [fleet_mock], load.answers, may_fail={503})


def test_forgotten_scripts_and_cut_connections_cost_at_most_a_moment(fleet, fleet_mock, key):
    with load_on(fleet, key) as load:
        fleet.redis.script_flush()
        fleet.redis.function_flush()
        flushed_at_s = time.monotonic()
        # A control plane looks three times a second, and a worker once.
        eventually(lambda: load.served_since(flushed_at_s, 48), timeout_s=LOADED_WITHIN_S, what="service")
        fleet.redis.client_kill_filter(_type="normal", skipme=True)
        cut_at_s = time.monotonic()
        eventually(lambda: load.served_since(cut_at_s), timeout_s=SERVED_AGAIN_WITHIN_S, what="service")
    assert {answer.status for answer in load.answers} <= {200, 503}
    assert_invariants(fleet, [fleet_mock], load.answers, may_fail={503})
