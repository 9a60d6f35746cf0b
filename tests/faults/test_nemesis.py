"""The nemesis: a short run of it, and that its judge sees what it is there to see."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.faults.fleet import MOCKS, fleet
from tests.faults.nemesis.history import History, read
from tests.faults.nemesis.judge import judge
from tests.faults.nemesis.plan import APART_S, AT_ONCE, plan
from tests.faults.nemesis.run import run
from tests.faults.nemesis.timeline import summary, timeline

# A schedule with as many kinds of faults as fit: all kinds of processes die, stand still and lose their links.
SEED, DURATION_S = 1852, 24.0
LINKS = [(plane, server) for plane in ("dataplane-1", "dataplane-2") for server in ("redis", "controlplane-1", *MOCKS)]
LINKS += [("controlplane-1", server) for server in ("redis", "postgres", *MOCKS)]


def test_the_same_seed_gives_the_same_schedule_and_another_one_another():
    schedule = plan(7, 120.0, LINKS, MOCKS)
    assert schedule == plan(7, 120.0, LINKS, MOCKS)
    assert schedule != plan(8, 120.0, LINKS, MOCKS)
    assert len(schedule) > 20
    for fault in schedule:
        others = [one for one in schedule if one.at_s <= fault.at_s < one.until_s]
        assert len(others) <= AT_ONCE
        assert [one for one in others if one.where == fault.where] == [fault]
        assert fault.until_s < 120.0


def test_a_worker_does_not_die_while_redis_alone_knows_what_it_held_and_forgets():
    for seed in range(40):
        schedule = plan(seed, 120.0, LINKS, MOCKS)
        emptied = [fault.at_s for fault in schedule if fault.kind == "empty"]
        died = [one.at_s for one in schedule if one.kind in ("kill", "terminate") and one.where.startswith("data")]
        assert not [(one, other) for one in emptied for other in died if abs(one - other) < APART_S]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_random_faults_under_load_break_no_promise(tmp_path):
    history = History(tmp_path / "nemesis.jsonl")
    with fleet(tmp_path) as whole:
        run(whole, history, seed=SEED, duration_s=DURATION_S)
    history.close()
    events = read(history.path)
    wrong = judge(events)
    assert wrong == [], "\n".join([f"seed {SEED}", *wrong, *timeline(events)])
    told = summary(events, wrong)
    assert told["requests"] > 50
    assert told["outcomes"]["completed"] > 10
    assert sum(told["faults"].values()) == len(plan(SEED, DURATION_S, list(whole.links), MOCKS))


def _history() -> list[dict[str, Any]]:
    """A good one: two requests, of which the second was asked while Redis was away, and a key that is revoked."""
    asked = {"event": "asked", "tenant": "poor", "plane": "dataplane-1", "dialect": "ollama", "stream": False}
    answered = {"event": "answered", "end": "whole", "errors": 0, "said": "", "is_done": False}
    served = {**answered, "status": 200, "request_id": "id-1", "said": "said1-000001 words", "is_done": True}
    return [
        {"event": "began", "at_s": 0.0, "marker": "said1", "seed": 1, "duration_s": 9.0},
        {"event": "tenant", "at_s": 0.0, "tenant": "poor", "budget_total": 40, "concurrent": 2},
        {**asked, "at_s": 1.0, "nonce": "said1-000001", "key": "a"},
        {**served, "at_s": 1.5, "nonce": "said1-000001"},
        {"event": "struck", "at_s": 2.0, "number": 1, "kind": "stop", "where": "redis"},
        {**asked, "at_s": 2.5, "nonce": "said1-000002", "key": "a"},
        {**answered, "at_s": 2.7, "nonce": "said1-000002", "status": 503, "request_id": "id-2"},
        {"event": "healed", "at_s": 3.0, "number": 1},
        {"event": "revoking", "at_s": 3.5, "key": "a"},
        {"event": "revoked", "at_s": 4.0, "key": "a", "is_pending": False},
        {**asked, "at_s": 5.0, "nonce": "said1-000003", "key": "a"},
        {**answered, "at_s": 5.1, "nonce": "said1-000003", "status": 401, "request_id": "id-3"},
        {"event": "slots", "at_s": 5.2, "tenant": "poor", "held": 2},
        *({"event": "memory", "at_s": 5.0 + n, "plane": "d", "pid": 1, "rss_bytes": 100 << 20} for n in range(4)),
        {"event": "agrees", "at_s": 8.0},
        {"event": "upstream", "at_s": 9.0, "request_id": "id-1", "nonce": "said1-000001", "arrived_at_s": 1.1},
        {"event": "row", "at_s": 9.0, "request_id": "id-1", "outcome": "done", "tenant": "poor", "total_tokens": 40},
    ]  # fmt: skip


def _upstream(number: int, arrived_at_s: float) -> dict[str, Any]:
    nonce = f"said1-{number:06d}"
    return {
        "event": "upstream",
        "at_s": 9.0,
        "request_id": f"id-{number}",
        "nonce": nonce,
        "arrived_at_s": arrived_at_s,
    }


def _row(number: int, **fields: Any) -> dict[str, Any]:
    row = {"event": "row", "at_s": 9.0, "request_id": f"id-{number}", "outcome": "completed", "tenant": "poor"}
    return {**row, "total_tokens": 0, **fields}


def _after(**fields: Any) -> list[dict[str, Any]]:
    """The good history with another end for its first request."""
    events = copy.deepcopy(_history())
    events[3].update(fields)
    return events


CRIMES = {
    "unchecked": [*_history(), _upstream(2, 2.6), _row(2)],
    "revoked": [*_history(), _upstream(3, 5.05), _row(3)],
    "overspent": [*_history(), _row(4, total_tokens=1)],
    "rows: said1-000002": [*_history(), _upstream(2, 3.1)],
    "rows: id-1": [*_history(), _row(1)],
    "mixed up": _after(said="said1-000002 words"),
    "mixed up: said1-000001 (poor, dataplane-1) was told nothing": _after(said="words"),
    "mixed up: id-2": _after(request_id="id-2"),
    "status: said1-000001 (poor, dataplane-1) was answered 500": _after(status=500),
    "status: said1-000001 (poor, dataplane-1) was answered 401": _after(status=401),
    "status: said1-000009": [*_history(), {**_history()[2], "nonce": "said1-000009"}],
    "end: said1-000001 (poor, dataplane-1) came": _after(is_done=False),
    "end: said1-000001 (poor, dataplane-1) was told both": _after(end="broken", errors=1),
    "memory": [*_history(), {**_history()[13], "rss_bytes": 900 << 20}],
    "slots": [*_history(), {**_history()[12], "held": 3}],
}


def test_a_history_in_which_all_is_well_is_judged_well():
    assert judge(_history()) == []


@pytest.mark.parametrize("crime", CRIMES)
def test_each_broken_promise_is_seen_in_a_history(crime):
    wrong = judge(CRIMES[crime])
    assert [one for one in wrong if one.startswith(crime)], wrong
