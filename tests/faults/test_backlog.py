"""A7.3: what waits for the ledger has reached its cap, and drains again."""

from __future__ import annotations

import subprocess
import uuid

from shared import keyspace
from shared.keyspace import SHARD_COUNT, TenantId
from tests.e2e.accounts import assert_invariants, scope_ids
from tests.e2e.crowd import Answer, ask_all, chat
from tests.e2e.harness import eventually
from tests.faults.fleet import CONTROL, Fleet
from tests.faults.starved import data_plane

SHARD_CAP = 8
DRAINED_WITHIN_S = 120.0


def test_a_full_backlog_denies_and_what_waited_drains_when_postgres_is_back(whole: Fleet):
    tenant = f"backlog-{uuid.uuid4().hex[:8]}"
    whole.gateway.tenant(tenant)
    key = whole.gateway.key(tenant)
    stream = keyspace.usage(keyspace.shard_of(TenantId(scope_ids(whole.gateway, tenant, key)["tenant"])))
    cap = {"AUDIT_BACKLOG_MAX": str(SHARD_CAP * SHARD_COUNT)}
    with data_plane(whole.gateway, stdout=subprocess.DEVNULL, settings=cap) as plane:

        def ask() -> Answer:
            [answer] = ask_all([plane.url], key, [chat(num_predict=16)])
            return answer

        for link in whole.links_to("postgres", CONTROL):
            link.hold_requests = link.hold_replies = True
        # What was read already may still be on its way out of the stream.
        answers = [ask()]
        while answers[-1].status == 200 and len(answers) < 4 * SHARD_CAP:
            answers.append(ask())
        assert answers[-1].status == 503
        assert answers[-1].retry_after_s >= 1
        refused = [ask() for _ in range(5)]
        assert {answer.status for answer in refused} == {503}
        # They are counted, and have their rows when there is room again.
        assert whole.gateway.redis.xlen(stream) == SHARD_CAP
        for link in whole.links_to("postgres", CONTROL):
            link.heal()
        eventually(lambda: ask().status == 200, timeout_s=DRAINED_WITHIN_S, what="service")
        assert_invariants(whole.gateway, whole.mocks, [*answers, *refused], may_fail={503})
        eventually(lambda: refusals(whole, tenant) > len(refused), timeout_s=30, what="rows of what was refused")


def refusals(whole: Fleet, tenant: str) -> int:
    """How many requests were refused because they could not be checked, as the ledger has it."""
    [row] = whole.gateway.rows(
        "SELECT coalesce(sum(occurrences), 0) AS times FROM gateway.audit_log a"
        " JOIN gateway.tenants t ON t.id = a.tenant_id WHERE t.name = $1 AND outcome = 'refused' AND a.status = 503",
        tenant,
    )
    times: int = row["times"]
    return times
