"""``GetBudgets``: ledger and counters side by side, and the truth about what is not known."""

from __future__ import annotations

import datetime as dt

import grpc
import pytest

from deploy.local.postgres import Postgres
from deploy.local.redis import Redis
from neuronetz.admin.v1 import key_pb2
from neuronetz.admin.v1 import usage_pb2 as pb
from shared import keyspace
from tests.integration.controlplane.conftest import VIEWER_TOKEN, fresh_database, serving, settings_for
from tests.integration.usage.conftest import Books, eventually

TODAY = dt.datetime.now(dt.UTC).date()


async def get(books, **fields):
    return await books.call(books.usage.GetBudgets, pb.GetBudgetsRequest(**fields), token=VIEWER_TOKEN)


async def test_budgets_show_limit_source_ledger_counters_and_what_remains(books):
    await books.record(2)
    tenant, key = books.scopes
    await books.count(tenant, used=300, reserved=500)
    await books.count(key, used=240, reserved=500)

    answer = await get(books, tenant="acme")

    assert (answer.tenant, answer.counters) == ("acme", pb.COUNTERS_LIVE)
    assert [(row.key, row.period) for row in answer.budgets] == [
        (prefix, period)
        for prefix in ("", books.keys[0].prefix, books.keys[1].prefix)
        for period in (f"{TODAY:%Y%m%d}", f"{TODAY:%Y%m}", "total")
    ]
    day, month, total = answer.budgets[:3]
    assert (day.limit, day.limit_source) == (10_000, pb.LIMIT_SOURCE_TENANT)
    assert (day.ledger_used, day.requests, day.used, day.reserved, day.remaining) == (240, 2, 300, 500, 9200)
    assert month.remaining == 49_200
    assert total.limit_source == pb.LIMIT_SOURCE_NONE
    assert not total.HasField("limit")
    assert not total.HasField("remaining")
    assert total.used == 300
    assert day.ends_at.ToDatetime().date() == TODAY + dt.timedelta(days=1)
    assert not total.HasField("ends_at")
    own = answer.budgets[3]
    assert (own.limit, own.limit_source, own.remaining, own.key_name) == (2000, pb.LIMIT_SOURCE_KEY, 1260, "first")
    inherited = answer.budgets[6]
    assert (inherited.limit, inherited.limit_source, inherited.used) == (10_000, pb.LIMIT_SOURCE_TENANT, 0)


async def test_one_key_is_shown_with_its_tenant(books):
    answer = await get(books, key=books.keys[1].prefix)
    assert [row.key for row in answer.budgets] == [""] * 3 + [books.keys[1].prefix] * 3


async def test_pages_follow_the_keys_and_only_the_first_shows_the_tenant(books):
    first = await get(books, tenant="acme", page_size=1)
    second = await get(books, tenant="acme", page_size=1, page_token=first.next_page_token)
    assert [row.key_name for row in first.budgets] == [""] * 3 + ["first"] * 3
    assert [row.key_name for row in second.budgets] == ["second"] * 3
    assert second.next_page_token == ""


async def test_ended_keys_are_shown_when_asked_for(books):
    await books.call(books.running.keys.RevokeKey, key_pb2.RevokeKeyRequest(prefix=books.keys[0].prefix))
    assert len((await get(books, tenant="acme")).budgets) == 6
    assert len((await get(books, tenant="acme", include_ended=True)).budgets) == 9


async def test_a_shard_that_is_not_rebuilt_shows_no_counters(books):
    await books.record(1)
    await books.client.set(keyspace.fence(books.shard), "another run:of another server:1")
    answer = await get(books, tenant="acme")
    if answer.counters != pb.COUNTERS_LIVE:
        assert answer.counters == pb.COUNTERS_REBUILDING
        assert not answer.budgets[0].HasField("used")
        assert not answer.budgets[0].HasField("remaining")
    assert answer.budgets[0].ledger_used == 120


async def test_without_redis_the_ledger_is_shown_and_nothing_is_guessed(postgres_server: Postgres, tmp_path):
    with Redis(tmp_path) as server:
        settings = settings_for(await fresh_database(postgres_server), server.url, REDIS_TIMEOUT_S="0.5")
        from controlplane.publish import connection

        async with serving(settings) as running, connection.connect(server.url, connect_timeout_s=1.0) as client:
            books = Books(running, client)
            await books.open()
            await books.record(1)
            server.stop()
            answer = await get(books, tenant="acme")
            assert answer.counters == pb.COUNTERS_UNAVAILABLE
            day = answer.budgets[0]
            assert (day.limit, day.ledger_used, day.requests) == (10_000, 120, 1)
            assert day.period == f"{TODAY:%Y%m%d}"
            assert not any(day.HasField(field) for field in ("used", "reserved", "remaining"))
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                request = pb.AdjustBudgetRequest(tenant="acme", tokens=-1, reason="r")
                await books.call(books.usage.AdjustBudget, request)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
            assert await books.recorded() == 1


@pytest.mark.parametrize(
    ("fields", "status", "text"),
    [
        ({}, "INVALID_ARGUMENT", "tenant or key is required"),
        ({"tenant": "nobody"}, "NOT_FOUND", "there is no tenant"),
        ({"tenant": "acme", "page_size": 1001}, "INVALID_ARGUMENT", "page_size must be from 0 to 1000"),
        ({"tenant": "acme", "page_token": "x"}, "INVALID_ARGUMENT", "page_token must be"),
        ({"tenant": "acme", "page_token": "WyJ4IiwieSJd"}, "INVALID_ARGUMENT", "page_token must be"),
    ],
)
async def test_what_cannot_be_answered_names_field_and_rule(books, fields, status, text):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await get(books, **fields)
    assert refused.value.code().name == status
    assert text in str(refused.value.details())


async def test_a_key_of_another_tenant_is_refused(books):
    from neuronetz.admin.v1 import tenant_pb2

    await books.call(books.running.tenants.CreateTenant, tenant_pb2.CreateTenantRequest(name="other"))
    with pytest.raises(grpc.aio.AioRpcError, match="key must belong to the tenant"):
        await get(books, tenant="other", key=books.keys[0].prefix)
    assert await eventually(lambda: get(books, tenant="other"))
