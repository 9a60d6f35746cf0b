"""``GetUsage``: sums that agree with what was recorded, by whatever they are asked for."""

from __future__ import annotations

import datetime as dt

import grpc
import pytest

from controlplane.store import engine
from neuronetz.admin.v1 import usage_pb2 as pb
from tests.integration.controlplane.conftest import DATAPLANE_TOKEN, VIEWER_TOKEN

TODAY = dt.datetime.now(dt.UTC).date()


async def get(books, **fields):
    return await books.call(books.usage.GetUsage, pb.GetUsageRequest(**fields), token=VIEWER_TOKEN)


async def test_rows_by_key_add_up_to_the_tenant_with_refusals_errors_and_provenance(books):
    await books.record(3)
    await books.record(2, key=1, provenance="counted", outcome="client_closed", status=499)
    await books.record(key=1, provenance="estimated", outcome="crashed", status=500)
    nothing = {"prompt_tokens": 0, "completion_tokens": 0}
    await books.record(outcome="refused", status=429, refusal="requests", occurrences=7, **nothing)
    await books.record(outcome="correction", status=0, prompt_tokens=-50, completion_tokens=0)

    answer = await get(books, tenant="acme", by=pb.USAGE_BY_KEY)

    first, second = sorted(answer.rows, key=lambda row: row.key_name)
    assert (first.key, first.tenant, first.key_name) == (books.keys[0].prefix, "acme", "first")
    assert (first.requests, first.refused, first.errors) == (3, 7, 0)
    assert (first.prompt_tokens, first.completion_tokens, first.total_tokens) == (250, 60, 310)
    assert (first.reported_tokens, first.corrected_tokens) == (360, -50)
    assert (second.requests, second.refused, second.errors) == (3, 0, 1)
    assert (second.counted_tokens, second.estimated_tokens, second.total_tokens) == (240, 120, 360)
    total = (await get(books, tenant="acme")).total
    assert (total.requests, total.refused, total.errors, total.total_tokens) == (6, 7, 1, 670)
    assert answer.total == total
    ledger = await books.value(
        "SELECT total_tokens FROM gateway.budget_usage WHERE scope_kind = 'tenant' AND period = 'total'"
    )
    assert ledger == total.total_tokens
    assert answer.source == pb.USAGE_SOURCE_AUDIT_LOG


async def test_rows_are_by_model_status_day_or_month(books):
    await books.record(2, model="qwen3:8b")
    await books.record(1, model="llama3.2", status=502, outcome="upstream_failed")
    yesterday = TODAY - dt.timedelta(days=1)
    await books.record(1, model="llama3.2", day=yesterday)
    span = {"from": f"{yesterday:%Y-%m-%d}", "to": f"{TODAY:%Y%m%d}"}

    by_model = (await get(books, by=pb.USAGE_BY_MODEL, **span)).rows
    by_status = (await get(books, by=pb.USAGE_BY_STATUS, **span)).rows
    by_day = (await get(books, by=pb.USAGE_BY_DAY, **span)).rows
    by_month = (await get(books, by=pb.USAGE_BY_MONTH, **span)).rows

    assert {(row.model, row.requests) for row in by_model} == {("llama3.2", 2), ("qwen3:8b", 2)}
    assert [(row.status, row.requests, row.errors) for row in by_status] == [(200, 3, 0), (502, 1, 1)]
    assert [(row.period, row.requests) for row in by_day] == [(f"{yesterday:%Y%m%d}", 1), (f"{TODAY:%Y%m%d}", 3)]
    assert {row.period for row in by_month} == {f"{yesterday:%Y%m}", f"{TODAY:%Y%m}"}
    assert sum(row.total_tokens for row in by_month) == 4 * 120


async def test_a_key_is_asked_for_by_prefix_and_counts_alone(books):
    await books.record(1)
    await books.record(2, key=1)
    answer = await get(books, key=books.keys[1].prefix, by=pb.USAGE_BY_TENANT)
    assert [(row.tenant, row.requests) for row in answer.rows] == [("acme", 2)]


async def test_failed_authentications_count_as_refused_of_nobody(books):
    await books.record(1)
    async with engine.connection() as held:
        await held.execute(
            "INSERT INTO gateway.audit_log (event_id, day, created_at, request_id, dialect, endpoint, status, outcome,"
            " refusal, provenance, occurrences, client_ip) VALUES"
            " ('anonymous', $1, now(), '', '', '', 401, 'refused', 'unknown', 'estimated', 40, '203.0.113.7/32')",
            TODAY,
        )
    rows = {row.tenant: row for row in (await get(books)).rows}
    assert (rows["acme"].requests, rows["acme"].refused) == (1, 0)
    assert (rows[""].requests, rows[""].refused) == (0, 40)
    (shown,) = (await books.call(books.usage.QueryAudit, pb.QueryAuditRequest(status=401))).rows
    assert (shown.tenant, shown.key, shown.occurrences, shown.client_ip) == ("", "", 40, "203.0.113.7/32")


@pytest.mark.parametrize("by", [pb.USAGE_BY_TENANT, pb.USAGE_BY_KEY, pb.USAGE_BY_DAY, pb.USAGE_BY_MONTH])
async def test_long_ranges_are_answered_from_the_sums_per_day(books, by):
    await books.record(2)
    await books.record(1, key=1)
    long = {"from": f"{TODAY - dt.timedelta(days=200):%Y-%m-%d}"}

    for asked in ({"tenant": "acme"}, {}, {"key": books.keys[1].prefix}):
        answer = await get(books, by=by, **asked, **long)
        recent = await get(books, by=by, **asked)
        assert answer.source == pb.USAGE_SOURCE_SUMS
        assert not answer.total.HasField("refused")
        for row, known in zip([*answer.rows, answer.total], [*recent.rows, recent.total], strict=True):
            for field in ("tenant", "key", "period", "requests", "prompt_tokens", "completion_tokens", "total_tokens"):
                assert getattr(row, field) == getattr(known, field)


async def test_without_any_usage_there_is_a_total_of_nothing(books):
    answer = await get(books, tenant="acme", by=pb.USAGE_BY_MODEL)
    assert list(answer.rows) == []
    assert (answer.total.requests, answer.total.refused, answer.total.total_tokens) == (0, 0, 0)
    assert (answer.first_day, answer.last_day) == (f"{TODAY:%Y%m}01", f"{TODAY:%Y%m%d}")


async def test_rows_beyond_the_most_are_left_out_and_counted(books, monkeypatch):
    from controlplane.store import usage

    for number in range(4):
        await books.record(1, model=f"m{number}", prompt_tokens=number)
    monkeypatch.setattr(usage, "MAX_ROWS", 3)
    answer = await get(books, by=pb.USAGE_BY_MODEL)
    assert [row.model for row in answer.rows] == ["m3", "m2", "m1"]
    assert answer.rows_left_out == 1
    assert answer.total.requests == 4


async def test_a_query_that_takes_too_long_says_so_and_harms_nothing(books, monkeypatch):
    from controlplane.store import usage

    await books.record(1)
    monkeypatch.setattr(usage, "QUERY_TIMEOUT_MS", 100)
    async with engine.transaction() as held:
        await held.execute("LOCK TABLE gateway.audit_log IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await get(books)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "shorter range" in str(refused.value.details())
    assert (await get(books)).total.requests == 1


@pytest.mark.parametrize(
    ("fields", "status", "text"),
    [
        ({"from": "soon", "to": "later"}, "INVALID_ARGUMENT", "from must be a day such as 2026-11-21 or a month"),
        ({"by": 99}, "INVALID_ARGUMENT", "by must be one of tenant, key, model, day, month, status"),
        ({"by": pb.USAGE_BY_MODEL, "from": "2025-01", "to": "2025-06"}, "INVALID_ARGUMENT", "at most 92 days"),
        ({"tenant": "nobody"}, "NOT_FOUND", "there is no tenant 'nobody'"),
        ({"key": "nz_000000000"}, "NOT_FOUND", "there is no key 'nz_000000000'"),
    ],
)
async def test_what_cannot_be_answered_names_field_and_rule(books, fields, status, text):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await get(books, **fields)
    assert refused.value.code().name == status
    assert text in str(refused.value.details())


async def test_a_data_plane_may_not_read_usage(books):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await books.call(books.usage.GetUsage, pb.GetUsageRequest(), token=DATAPLANE_TOKEN)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
