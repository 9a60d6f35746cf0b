"""A flood without acceptable keys becomes a handful of audit rows, and nothing of it touches the ledger's streams."""

from __future__ import annotations

import asyncio

import pytest

from shared import keyspace
from tests.e2e.crowd import Client, chat
from tests.e2e.harness import eventually

REQUESTS = 1000


@pytest.mark.timeout(300)
def test_a_flood_of_failures_is_a_few_rows_without_a_tenant(fleet):
    query = (
        "SELECT coalesce(sum(occurrences), 0)::int AS failures, count(*)::int AS rows, "
        "count(tenant_id)::int AS tenants, coalesce(sum(total_tokens), 0)::int AS tokens "
        "FROM gateway.audit_log WHERE tenant_id IS NULL AND client_ip = '127.0.0.1'"
    )
    before = fleet.rows(query)[0]

    async def flood() -> set[int]:
        clients = [Client(fleet.urls[number % len(fleet.urls)], f"nz_{number:060d}") for number in range(20)]
        answers = await asyncio.gather(*(ask(client) for client in clients))
        return {status for statuses in answers for status in statuses}

    async def ask(client: Client) -> list[int]:
        try:
            return [(await client.ask(chat())).status for _ in range(REQUESTS // 20)]
        finally:
            client.close()

    assert asyncio.run(flood()) <= {401, 429}
    eventually(
        lambda: fleet.rows(query)[0]["failures"] - before["failures"] >= REQUESTS, timeout_s=60, what="the audit rows"
    )
    [after] = fleet.rows(query)
    assert after["failures"] - before["failures"] == REQUESTS
    # Two reasons, of four workers, in the windows of ten seconds that the flood has met.
    assert after["rows"] - before["rows"] <= 2 * 4 * 3
    assert after["tenants"] == after["tokens"] == 0
    assert fleet.redis.xlen(keyspace.ANONYMOUS) <= 2 * 4 * 3 + before["rows"]
