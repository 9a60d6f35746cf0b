"""``QueryAudit`` and ``TailAudit``: every row once, in order, whoever commits when."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncIterator

import grpc
import pytest

from controlplane.store import audit, engine
from controlplane.store.audit import AuditFilter
from neuronetz.admin.v1 import usage_pb2 as pb
from tests.integration.controlplane.conftest import ADMIN_TOKEN, VIEWER_TOKEN
from tests.integration.usage.conftest import Books

TODAY = dt.datetime.now(dt.UTC).date()
METADATA = (("authorization", f"Bearer {VIEWER_TOKEN}"),)


async def query(books: Books, **fields):
    return await books.call(books.usage.QueryAudit, pb.QueryAuditRequest(**fields), token=VIEWER_TOKEN)


async def every_page(books: Books, size: int, **fields) -> list[pb.AuditRow]:
    rows: list[pb.AuditRow] = []
    token = ""
    while True:
        page = await query(books, page_size=size, page_token=token, **fields)
        assert len(page.rows) <= size
        rows += page.rows
        token = page.next_page_token
        if not token:
            return rows


@contextlib.asynccontextmanager
async def tail(books: Books, **fields) -> AsyncIterator[AsyncIterator[pb.TailAuditResponse]]:
    """A tail that has begun: it sees whatever is recorded from now on."""
    call = books.usage.TailAudit(pb.TailAuditRequest(**fields), metadata=METADATA, timeout=30)
    await call.initial_metadata()
    try:
        yield aiter(call)
    finally:
        call.cancel()


async def next_of(rows: AsyncIterator[pb.TailAuditResponse], count: int) -> list[pb.TailAuditResponse]:
    async with asyncio.timeout(30):
        return [await anext(rows) for _ in range(count)]


async def test_rows_come_newest_first_with_names_and_numbers(books):
    await books.record(3, backend="gpu-1", duration_ms=1200, ttft_ms=80, client_ip="10.0.0.7")
    rows = (await query(books, tenant="acme")).rows
    assert [row.event_id for row in rows] == ["event-3", "event-2", "event-1"]
    newest = rows[0]
    assert (newest.tenant, newest.key, newest.request_id) == ("acme", books.keys[0].prefix, "request-3")
    assert (newest.status, newest.outcome, newest.provenance) == (200, pb.OUTCOME_COMPLETED, pb.PROVENANCE_REPORTED)
    assert (newest.prompt_tokens, newest.completion_tokens, newest.total_tokens) == (100, 20, 120)
    assert (newest.backend, newest.duration_ms, newest.ttft_ms, newest.client_ip) == ("gpu-1", 1200, 80, "10.0.0.7")
    assert newest.day == f"{TODAY:%Y%m%d}"


@pytest.mark.parametrize("size", [1, 2, 3, 7])
async def test_pages_hold_every_row_once_also_where_moments_are_equal(books, size):
    at = round(dt.datetime.now(dt.UTC).timestamp() * 1000) - 5000
    await books.record(4, created_at_ms=at)
    await books.record(3)
    rows = await every_page(books, size, tenant="acme")
    assert len({row.event_id for row in rows}) == len(rows) == 7
    moments = [row.created_at.ToMilliseconds() for row in rows]
    assert moments == sorted(moments, reverse=True)


async def test_each_filter_holds_alone_and_together(books):
    await books.record(1, model="llama3.2:latest")
    await books.record(1, key=1, status=429, outcome="refused", refusal="requests", request_id="the-one")
    await books.record(1, key=1, status=502, outcome="upstream_failed")

    async def found(**fields) -> list[str]:
        return [row.event_id for row in (await query(books, **fields)).rows]

    assert await found(key=books.keys[1].prefix) == ["event-3", "event-2"]
    assert await found(model="llama3.2") == await found(model="Llama3.2:latest") == ["event-1"]
    assert await found(model="no name!") == []
    assert await found(status=502) == ["event-3"]
    assert await found(outcome=pb.OUTCOME_REFUSED) == ["event-2"]
    assert await found(request_id="the-one") == ["event-2"]
    assert await found(tenant="acme", key=books.keys[0].prefix, status=200) == ["event-1"]
    assert await found(key=books.keys[0].prefix, status=502) == []


async def test_a_range_holds_its_first_moment_and_not_its_last(books):
    base = dt.datetime.now(dt.UTC).replace(microsecond=0) - dt.timedelta(hours=2)
    for seconds in range(3):
        moment = base + dt.timedelta(seconds=seconds)
        await books.record(1, created_at_ms=round(moment.timestamp() * 1000))
    span = {"from": base + dt.timedelta(seconds=1), "to": base + dt.timedelta(seconds=2)}
    assert [row.event_id for row in (await query(books, **span)).rows] == ["event-2"]


async def test_rows_of_a_day_that_clocks_disagree_about_are_found_by_their_moment(books):
    yesterday = TODAY - dt.timedelta(days=1)
    midnight = dt.datetime.combine(TODAY, dt.time(), dt.UTC)
    # The worker's clock says yesterday, the day that it is charged to is today, and the other way round.
    await books.record(1, day=TODAY, created_at_ms=round((midnight.timestamp() - 2) * 1000))
    await books.record(1, day=yesterday, created_at_ms=round((midnight.timestamp() + 2) * 1000))
    span = {"from": midnight - dt.timedelta(seconds=5), "to": midnight + dt.timedelta(seconds=5)}
    assert [row.event_id for row in (await query(books, **span)).rows] == ["event-2", "event-1"]


async def test_a_correction_of_a_past_day_is_found_when_it_was_made(books):
    now_ms = round(dt.datetime.now(dt.UTC).timestamp() * 1000)
    await books.record(1, day=TODAY - dt.timedelta(days=40), outcome="correction", created_at_ms=now_ms)
    await books.record(1)
    assert {row.event_id for row in (await query(books, tenant="acme")).rows} == {"event-1", "event-2"}


async def test_only_partitions_of_the_range_are_read(books):
    for days in (0, 3, 5, 8):
        await books.record(1, day=TODAY - dt.timedelta(days=days))
    async with engine.connection() as held:
        plan = await held.fetch(
            "EXPLAIN SELECT * FROM gateway.audit_log WHERE day BETWEEN $1::date AND $2::date AND created_at >= now()",
            TODAY - dt.timedelta(days=1),
            TODAY,
        )
    text = "\n".join(row[0] for row in plan)
    assert f"audit_log_{TODAY:%Y%m%d}" in text
    assert f"audit_log_{TODAY - dt.timedelta(days=5):%Y%m%d}" not in text


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"page_size": -1}, "page_size must be from 0 to 1000"),
        ({"page_token": "nonsense"}, "page_token must be the next_page_token"),
        ({"status": 1000}, "status must be from 0 to 999"),
        ({"outcome": 77}, "outcome must be one of completed"),
        ({"model": "m" * 301}, "model must have at most 300 characters"),
        ({"request_id": "r\0"}, "request_id must have at most 200 characters"),
        (
            {"from": dt.datetime(2026, 1, 2, tzinfo=dt.UTC), "to": dt.datetime(2026, 1, 1, tzinfo=dt.UTC)},
            "from must be before to",
        ),
        (
            {"from": dt.datetime(2025, 1, 1, tzinfo=dt.UTC), "to": dt.datetime(2026, 1, 1, tzinfo=dt.UTC)},
            "from must be at most 92 days before to",
        ),
        ({"from": dt.datetime(1970, 1, 1, tzinfo=dt.UTC)}, "from must be in the years 2000 to 2199"),
    ],
)
async def test_what_cannot_be_asked_names_field_and_rule(books, fields, text):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await query(books, **fields)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert text in str(refused.value.details())


async def test_the_tail_shows_what_is_recorded_and_nothing_from_before(books):
    await books.record(2)
    async with tail(books, tenant="acme") as rows:
        await books.record(3)
        shown = await next_of(rows, 3)
    assert [answer.row.event_id for answer in shown] == ["event-3", "event-4", "event-5"]
    assert all(answer.resume_token for answer in shown)


async def test_the_tail_filters_as_the_query_does(books):
    async with tail(books, key=books.keys[1].prefix, outcome=pb.OUTCOME_REFUSED) as rows:
        await books.record(1)
        await books.record(1, key=1)
        await books.record(1, key=1, outcome="refused", status=429)
        (answer,) = await next_of(rows, 1)
    assert answer.row.event_id == "event-3"


async def test_a_tail_goes_on_where_another_ended_without_loss_or_repetition(books):
    async with tail(books) as rows:
        await books.record(4)
        first = await next_of(rows, 2)
    await books.record(2)
    call = books.usage.TailAudit(
        pb.TailAuditRequest(resume_token=first[-1].resume_token), metadata=METADATA, timeout=30
    )
    rest = await next_of(aiter(call), 4)
    call.cancel()
    events = [answer.row.event_id for answer in (*first, *rest)]
    assert sorted(events) == [f"event-{number}" for number in range(1, 7)]


async def test_rows_of_a_transaction_that_commits_late_are_not_passed_over(books):
    """Its rows are older in the order of recording than rows that are visible before them."""
    start = await audit.horizon()
    await books.record(1)
    wanted = AuditFilter()
    shown: list[str] = []
    async with engine.transaction() as slow:
        await slow.execute(
            "INSERT INTO gateway.audit_log (event_id, day, created_at, request_id, tenant_id, key_id, dialect,"
            " endpoint, status, outcome, provenance) SELECT 'slow', day, created_at, 'slow', tenant_id, key_id,"
            " dialect, endpoint, status, outcome, provenance FROM gateway.audit_log"
        )
        await books.record(2)
        rows, position = await audit.tail(wanted, start, today=TODAY, size=10)
        shown += [row.event_id for row in rows]
        assert shown == ["event-1"]
    rows, position = await audit.tail(wanted, position, today=TODAY, size=2)
    shown += [row.event_id for row in rows]
    rows, position = await audit.tail(wanted, position, today=TODAY, size=2)
    shown += [row.event_id for row in rows]
    assert shown[0] == "event-1"
    assert shown[1] == "slow"
    assert sorted(shown[2:]) == ["event-2", "event-3"]
    assert (await audit.tail(wanted, position, today=TODAY, size=2))[0] == []


async def test_a_stop_ends_tails_at_once_and_tells_them_to_go_on(books):
    async with tail(books) as rows:
        await books.record(1)
        await next_of(rows, 1)
        books.running.plane.stop()
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await next_of(rows, 1)
    assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "resume token" in str(ended.value.details())


async def test_more_tails_than_a_process_bears_are_refused_and_ended_ones_make_room(books, monkeypatch):
    from controlplane.rpc import tails

    monkeypatch.setattr(tails, "MAX_TAILS", 1)
    async with tail(books) as rows:
        await books.record(1)
        await next_of(rows, 1)
        second = books.usage.TailAudit(pb.TailAuditRequest(), metadata=METADATA, timeout=30)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await anext(aiter(second))
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

    async def admitted() -> bool:
        third = books.usage.TailAudit(pb.TailAuditRequest(), metadata=METADATA, timeout=1)
        try:
            await anext(aiter(third))
        except grpc.aio.AioRpcError as ended:
            return ended.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        return False

    async with asyncio.timeout(30):
        while not await admitted():
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    "token", ["nonsense", "WyJ4IiwieSIsInoiXQ", "WyItMSIsImEiLCIxIl0", "WyIxIiwiYSIsIjk5OTk5OTk5OTk5OTk5OTk5OTkiXQ"]
)
async def test_a_resume_token_of_no_tail_is_refused(books, token):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await anext(
            aiter(books.usage.TailAudit(pb.TailAuditRequest(resume_token=token), metadata=METADATA, timeout=30))
        )
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "resume_token must be" in str(refused.value.details())


async def test_a_resume_token_older_than_a_day_points_to_the_query(books):
    from controlplane.rpc.usage_messages import write_resume_token
    from controlplane.store.audit import Position

    token = write_resume_token(Position(1, "event-1"), dt.datetime.now(dt.UTC) - dt.timedelta(days=1, minutes=1))
    with pytest.raises(grpc.aio.AioRpcError, match="use query-audit"):
        await anext(
            aiter(books.usage.TailAudit(pb.TailAuditRequest(resume_token=token), metadata=METADATA, timeout=30))
        )


async def test_a_tail_of_an_unknown_tenant_ends_with_its_reason(books):
    call = books.usage.TailAudit(
        pb.TailAuditRequest(tenant="nobody"), metadata=(("authorization", f"Bearer {ADMIN_TOKEN}"),), timeout=5
    )
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await anext(aiter(call))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
