"""A worker dies by SIGKILL with streams open: what it held comes back by itself, and is charged, not forgotten."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import uuid

import httpx
import pytest

from tests.e2e.accounts import assert_invariants, budget_of, scope_ids
from tests.e2e.crowd import ask_all, chat
from tests.e2e.harness import bearer, eventually

STREAMS = 6
FREE_WITHIN_S = 35.0
# What a busy machine may be late.
LATE_S = 10.0
VICTIM = 3


@pytest.mark.slow
def test_a_killed_workers_streams_are_charged_as_crashed_and_their_slots_free_within_35_seconds(fleet, fleet_mock):
    fleet_mock.reset()
    fleet_mock.script(
        {"match": {"model": "qwen3:8b"}, "times": None, "fault": {"kind": "endless", "per_record_ms": 50}}
    )
    tenant = f"crash-{uuid.uuid4().hex[:8]}"
    fleet.tenant(tenant, concurrent=STREAMS, budget_total=1_000_000)
    key = fleet.key(tenant)
    ids = scope_ids(fleet, tenant, key)
    survivors = [url for number, url in enumerate(fleet.urls) if number != VICTIM]

    with contextlib.ExitStack() as streams:
        http = streams.enter_context(httpx.Client(timeout=20, trust_env=False))
        request_ids, lines = [], []
        for number in range(STREAMS):
            body = {**chat(number, model="qwen3:8b", num_predict=512), "stream": True}
            reply = streams.enter_context(
                http.stream("POST", f"{fleet.urls[VICTIM]}/api/chat", json=body, headers=bearer(key))
            )
            # Kept: an iterator that is forgotten closes its stream.
            lines.append(reply.iter_lines())
            assert '"done":false' in next(lines[-1])
            request_ids.append(reply.headers["x-request-id"])
        reserved = budget_of(fleet, "tenant", ids["tenant"]).reserved
        assert reserved >= STREAMS * 512
        fleet.may_restart(f"dataplane-{VICTIM + 1}")
        os.kill(fleet.worker(VICTIM), signal.SIGKILL)
        killed_at_s = time.monotonic()

    # Nobody has returned the slots yet, and all replicas know it.
    assert {answer.status for answer in ask_all(survivors, key, [chat()] * 3)} == {429}
    other = fleet.key("fleet")
    assert {answer.status for answer in ask_all(survivors, other, [chat()] * 6)} == {200}
    eventually(
        lambda: _serves(survivors[0], key),
        timeout_s=FREE_WITHIN_S + LATE_S - (time.monotonic() - killed_at_s),
        what="a free slot",
    )
    eventually(
        lambda: not fleet.open_leases() and not budget_of(fleet, "tenant", ids["tenant"]).reserved,
        timeout_s=FREE_WITHIN_S + LATE_S + 1 - (time.monotonic() - killed_at_s),
        what="that nothing is reserved",
    )
    eventually(lambda: _serves(fleet.urls[VICTIM], other), timeout_s=60, what="a new worker")
    assert _serves(fleet.urls[VICTIM], key)
    assert_invariants(fleet, [fleet_mock])
    rows = fleet.rows(
        "SELECT request_id, outcome, provenance, total_tokens, model FROM gateway.audit_log "
        "WHERE request_id = ANY($1::text[])",
        request_ids,
    )
    assert sorted(row["request_id"] for row in rows) == sorted(request_ids)
    assert {row["outcome"] for row in rows} == {"crashed"}
    assert {row["provenance"] for row in rows} == {"estimated"}
    assert {row["model"] for row in rows} == {"qwen3:8b"}
    assert sum(row["total_tokens"] for row in rows) == reserved


def _serves(url: str, key: str) -> bool:
    return ask_all([url], key, [chat()])[0].status == 200
