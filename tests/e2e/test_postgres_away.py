"""Postgres goes away under load: requests go on, and afterwards the ledger has every one of them exactly once."""

from __future__ import annotations

import signal
import time
import uuid

import asyncpg
import grpc
import pytest

from tests.e2e.accounts import assert_invariants
from tests.e2e.crowd import Traffic
from tests.e2e.harness import eventually

AWAY_S = 15.0


@pytest.mark.slow
def test_without_postgres_no_request_fails_and_every_row_arrives_exactly_once(fleet, fleet_mock):
    fleet_mock.reset()
    tenant = f"away-{uuid.uuid4().hex[:8]}"
    fleet.tenant(tenant, budget_total=1_000_000_000)
    key = fleet.key(tenant)
    with Traffic(fleet.urls, key, clients=12, rest_s=0.1) as traffic:
        eventually(lambda: len(traffic.answers) >= 60, what="traffic")
        fleet.signal_server("postgres", signal.SIGQUIT)
        gone_at_s = time.monotonic()
        with pytest.raises(grpc.RpcError) as refusal:
            fleet.tenant("nobody")
        assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
        eventually(lambda: time.monotonic() - gone_at_s >= AWAY_S, timeout_s=AWAY_S + 1)
        fleet.start_again("postgres.cmd")
        back_at_s = time.monotonic()
        eventually(lambda: len(traffic.between(back_at_s, time.monotonic())) >= 60, what="traffic")
    assert {answer.status for answer in traffic.answers} == {200}
    assert len(traffic.between(gone_at_s, back_at_s)) > 12 * AWAY_S
    eventually(lambda: _is_reachable(fleet), timeout_s=60, what="Postgres")
    assert_invariants(fleet, [fleet_mock], traffic.answers)
    [row] = fleet.rows(
        "SELECT count(*) AS rows, count(DISTINCT request_id) AS requests FROM gateway.audit_log a "
        "JOIN gateway.tenants t ON t.id = a.tenant_id WHERE t.name = $1",
        tenant,
    )
    assert row["rows"] == row["requests"] == len(traffic.answers)


def _is_reachable(gateway) -> bool:
    try:
        return bool(gateway.rows("SELECT 1"))
    except (OSError, asyncpg.CannotConnectNowError):
        return False
