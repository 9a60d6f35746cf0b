"""``AdjustBudget``: an entry in the ledger and the same difference in the counters, once, or nothing at all."""

from __future__ import annotations

import asyncio
import datetime as dt
import re
from typing import Any

import grpc
import msgspec
import pytest

from controlplane.errors import RedisUnavailableError
from controlplane.publish.budgets import Adjusted, BudgetCounters
from controlplane.publish.fence import Fences, Server
from neuronetz.admin.v1 import usage_pb2 as pb
from shared import keyspace
from tests.fakes.counted import put_counter
from tests.integration.controlplane.conftest import ADMIN_TOKEN, OPERATOR_TOKEN, VIEWER_TOKEN
from tests.integration.usage.conftest import Books

TODAY = dt.datetime.now(dt.UTC).date()
PERIODS = (f"{TODAY:%Y%m%d}", f"{TODAY:%Y%m}", "total")


async def adjust(books: Books, *, token: str = OPERATOR_TOKEN, **fields) -> pb.AdjustBudgetResponse:
    values: dict[str, Any] = {"tenant": "acme", "tokens": -50, "reason": "failed batch"} | fields
    request = pb.AdjustBudgetRequest(**values)
    answer: pb.AdjustBudgetResponse = await books.call(books.usage.AdjustBudget, request, token=token)
    return answer


async def used_120(books: Books) -> None:
    """One request of the first key, in the ledger and in the counters."""
    await books.record(1)
    for scope in books.scopes:
        await books.count(scope, used=120, reserved=30)


async def ledger(books: Books) -> dict[tuple[str, str], tuple[int, int]]:
    """Tokens and requests of each scope and period, according to the ledger."""
    from controlplane.store import engine

    async with engine.connection() as held:
        rows = await held.fetch("SELECT scope_kind, period, total_tokens, requests FROM gateway.budget_usage")
    return {(row["scope_kind"], row["period"]): (row["total_tokens"], row["requests"]) for row in rows}


async def test_a_correction_is_an_entry_with_reason_and_operator_and_moves_counters_and_ledger_alike(books):
    await used_120(books)

    answer = await adjust(books, key=books.keys[0].prefix)

    assert (answer.recorded, answer.applied_before) == (True, False)
    prefix = books.keys[0].prefix
    assert [(row.key, row.period, row.used, row.reserved) for row in answer.counters] == [
        (key, period, 70, 30) for key in ("", prefix) for period in PERIODS
    ]
    for scope in books.scopes:
        assert [await books.used(scope, period) for period in PERIODS] == [70] * 3
    assert await ledger(books) == {(kind, period): (70, 1) for kind in ("tenant", "key") for period in PERIODS}
    found = await books.call(books.usage.QueryAudit, pb.QueryAuditRequest(outcome=pb.OUTCOME_CORRECTION))
    (row,) = found.rows
    assert (row.event_id, row.request_id) == (f"adjust:{answer.correction_id}", answer.correction_id)
    assert (row.total_tokens, row.reason, row.operator, row.tenant, row.key) == (
        -50, "failed batch", "olga", "acme", prefix,
    )  # fmt: skip
    assert await books.value("SELECT outcome FROM control.operator_audit WHERE method = 'AdjustBudget'") == "OK"


async def test_a_correction_of_a_tenant_leaves_its_keys_alone(books):
    await used_120(books)
    answer = await adjust(books, tokens=30)
    assert {row.key for row in answer.counters} == {""}
    tenant, key = books.scopes
    assert [await books.used(scope, "total") for scope in (tenant, key)] == [150, 120]
    sums = await ledger(books)
    assert (sums["tenant", "total"], sums["key", "total"]) == ((150, 1), (120, 1))


async def test_the_same_correction_is_applied_once_however_often_and_whenever_it_is_sent(books):
    await used_120(books)
    answers = await asyncio.gather(*(adjust(books, correction_id="ticket-4711") for _ in range(8)))
    assert sum(not answer.applied_before for answer in answers) == 1
    # The tombstone is gone long before the ledger forgets.
    lease = keyspace.lease(books.shard, keyspace.LeaseId("adjust:ticket-4711"))
    assert await books.client.delete(lease) == 1
    again = await adjust(books, correction_id="ticket-4711")
    assert (again.applied_before, again.recorded) == (True, True)
    assert [row.used for row in again.counters] == [70] * 3
    assert await books.used(books.scopes[0], "total") == 70
    assert (await ledger(books))["tenant", "total"] == (70, 1)
    assert await books.recorded() == 2


async def test_an_id_that_belongs_to_another_correction_is_refused(books):
    await used_120(books)
    await adjust(books, correction_id="ticket-4711")
    for other in ({"tokens": -49}, {"key": books.keys[0].prefix}, {"period": f"{TODAY - dt.timedelta(days=1):%Y%m%d}"}):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await adjust(books, **{"correction_id": "ticket-4711"} | other)
        assert refused.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert await books.used(books.scopes[0], "total") == 70


async def test_a_dry_run_says_what_would_result_and_changes_nothing(books):
    await used_120(books)
    answer = await adjust(books, validate_only=True)
    assert [row.used for row in answer.counters] == [70] * 3
    assert not answer.recorded
    assert await books.used(books.scopes[0], "total") == 120
    assert await books.recorded() == 1
    assert await books.value("SELECT count(*) FROM control.operator_audit WHERE method = 'AdjustBudget'") == 0


async def test_used_never_falls_below_nothing_and_nothing_is_changed_then(books):
    await used_120(books)
    await put_counter(books.client, books.shard, books.scopes[1], PERIODS[0], used=49)
    with pytest.raises(grpc.aio.AioRpcError, match="below 0 in any period") as refused:
        await adjust(books, key=books.keys[0].prefix)
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert [await books.used(scope, "total") for scope in books.scopes] == [120, 120]
    assert await books.recorded() == 1


async def test_used_never_grows_beyond_what_is_counted_exactly(books):
    await books.count(books.scopes[0], used=2**53 - 10)
    with pytest.raises(grpc.aio.AioRpcError, match="counted exactly"):
        await adjust(books, tokens=10)
    assert await books.used(books.scopes[0], "total") == 2**53 - 10
    await adjust(books, tokens=9)
    assert await books.used(books.scopes[0], "total") == 2**53 - 1


async def test_a_day_long_past_is_corrected_in_the_ledger_its_counters_stay_gone(books):
    day = TODAY - dt.timedelta(days=62)
    await books.record(1, day=day)
    await put_counter(books.client, books.shard, books.scopes[0], "total", used=120)

    answer = await adjust(books, period=f"{day:%Y-%m-%d}")

    assert [(row.period, row.used) for row in answer.counters] == [("total", 70)]
    assert await books.used(books.scopes[0], f"{day:%Y%m%d}") is None
    assert await books.used(books.scopes[0], f"{day:%Y%m}") is None
    assert (await ledger(books))["tenant", f"{day:%Y%m%d}"] == (70, 1)
    with pytest.raises(grpc.aio.AioRpcError, match="below 0 in any period"):
        await adjust(books, period=f"{day:%Y%m%d}", tokens=-71)
    assert await books.used(books.scopes[0], "total") == 70


async def test_a_correction_makes_the_counters_that_admission_would(books):
    await adjust(books, tokens=5)
    assert [await books.used(books.scopes[0], period) for period in PERIODS] == [5, 5, 5]
    assert await books.client.ttl(keyspace.counters(books.shard, books.scopes[0])) == -1


async def test_without_its_fence_a_shard_is_not_corrected(books, monkeypatch):
    await used_120(books)
    server = await Fences(books.client, timeout_s=2.0).server()

    async def after_a_restart(_fences: Fences) -> Server:
        return msgspec.structs.replace(server, incarnation="another run:")

    monkeypatch.setattr(Fences, "server", after_a_restart)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await adjust(books)
    monkeypatch.undo()
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert await books.used(books.scopes[0], "total") == 120


async def test_an_answer_that_is_lost_names_the_id_to_repeat_with(books, monkeypatch):
    await used_120(books)
    real = BudgetCounters.adjust

    async def lossy(self: BudgetCounters, *arguments: Any, check_only: bool) -> Adjusted:
        done = await real(self, *arguments, check_only=check_only)
        if check_only:
            return done
        raise RedisUnavailableError("the answer was lost")

    monkeypatch.setattr(BudgetCounters, "adjust", lossy)
    with pytest.raises(grpc.aio.AioRpcError) as lost:
        await adjust(books)
    monkeypatch.undo()
    assert lost.value.code() is grpc.StatusCode.UNAVAILABLE
    named = re.search(r"correction_id ([0-9a-f-]{36})", str(lost.value.details()))
    assert named is not None
    assert (await adjust(books, correction_id=named[1])).applied_before
    assert await books.used(books.scopes[0], "total") == 70


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"tenant": ""}, "tenant or key is required"),
        ({"tokens": 0}, "tokens must be from -1000000000000 to 1000000000000 and not 0"),
        ({"reason": " "}, "reason must have 1 to 500 printable characters"),
        ({"period": "202611"}, "period must be a day such as 20261121"),
        ({"period": "20200101"}, "one of the 62 days before"),
        ({"correction_id": "x"}, "correction_id must have 8 to 64"),
    ],
)
async def test_what_cannot_be_corrected_names_field_and_rule(books, fields, text):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await adjust(books, **fields)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert text in str(refused.value.details())
    assert await books.recorded() == 0


async def test_a_viewer_may_not_correct_and_an_administrator_may(books):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await adjust(books, token=VIEWER_TOKEN, tokens=1)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    await adjust(books, token=ADMIN_TOKEN, tokens=1)
    assert await books.value("SELECT operator FROM gateway.audit_log") == "admin"
