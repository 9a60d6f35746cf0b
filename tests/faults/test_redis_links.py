"""A6: the links to Redis, one plane at a time: who cannot ask is refused, others are served, and nothing is lost."""

from __future__ import annotations

import time
import uuid

import pytest

from tests.e2e.accounts import assert_invariants, budget_of, scope_ids
from tests.e2e.crowd import Answer, ask_all, chat
from tests.e2e.harness import eventually
from tests.e2e.streams import OpenStream
from tests.fakes.tcp_proxy import Link
from tests.faults.fleet import Fleet

# Half a minute, less the five seconds in which a lease is no longer trusted.
CUT_AFTER_S = 25.0
SERVED_AGAIN_WITHIN_S = 60.0


def hold(link: Link) -> None:
    link.hold_requests = link.hold_replies = True


def hold_replies(link: Link) -> None:
    link.hold_replies = True


def lag(link: Link) -> None:
    link.delay = lambda: 1.0


def refuse(link: Link) -> None:
    link.refuses = True
    link.reset()


def hang(link: Link) -> None:
    link.hangs = True
    link.reset()


def drip(link: Link) -> None:
    # A decision takes some hundred bytes: far longer than an admission may wait.
    link.bytes_per_s = 100


OUTAGES = {"hold": hold, "hold replies": hold_replies, "lag": lag, "refuse": refuse, "hang": hang, "drip": drip}


@pytest.fixture
def tenant(whole: Fleet) -> str:
    name = f"links-{uuid.uuid4().hex[:8]}"
    whole.gateway.tenant(name, budget_total=1_000_000_000)
    return name


@pytest.fixture
def key(whole: Fleet, tenant: str) -> str:
    key = whole.gateway.key(tenant)
    assert {answer.status for answer in ask(whole, key, 0) + ask(whole, key, 1)} == {200}
    return key


def ask(whole: Fleet, key: str, plane: int, count: int = 2) -> list[Answer]:
    return ask_all([whole.gateway.urls[plane]], key, [chat(num_predict=16)] * count)


@pytest.mark.parametrize("outage", OUTAGES)
def test_a_link_to_redis_that_is_spoilt_denies_and_serves_again_when_it_is_well(whole: Fleet, key: str, outage: str):
    link = whole.link("dataplane-1", "redis")
    OUTAGES[outage](link)
    # Connections that are cut are noticed a moment later.
    eventually(lambda: {one.status for one in ask(whole, key, 0)} == {503}, what="the refusal")
    for mock in whole.mocks:
        mock.forget()
    denied = ask(whole, key, 0, 10)
    assert {answer.status for answer in denied} == {503}
    assert all(answer.retry_after_s >= 1 for answer in denied)
    assert sum(len(mock.requests()) for mock in whole.mocks) == 0
    served = ask(whole, key, 1, 4)
    assert {answer.status for answer in served} == {200}
    link.heal()
    eventually(
        lambda: {one.status for one in ask(whole, key, 0)} == {200}, timeout_s=SERVED_AGAIN_WITHIN_S, what="service"
    )
    assert_invariants(whole.gateway, whole.mocks, [*denied, *served], may_fail={503})


@pytest.mark.parametrize("size", ["slices", "resets"])
def test_small_pieces_change_nothing_and_resets_cost_a_moment(whole: Fleet, key: str, size: str):
    link = whole.link("dataplane-1", "redis")
    if size == "slices":
        link.slice_bytes = 32
    else:
        link.reset()
    eventually(
        lambda: {one.status for one in ask(whole, key, 0)} == {200}, timeout_s=SERVED_AGAIN_WITHIN_S, what="service"
    )
    assert_invariants(whole.gateway, whole.mocks)


def test_replies_that_come_too_late_are_charged_to_nobody(whole: Fleet, tenant: str, key: str):
    ids = scope_ids(whole.gateway, tenant, key)
    assert_invariants(whole.gateway, whole.mocks)
    before = budget_of(whole.gateway, "tenant", ids["tenant"])
    link = whole.link("dataplane-1", "redis")
    link.hold_replies = True
    answers = ask(whole, key, 0, 6)
    assert {answer.status for answer in answers} == {503}
    link.heal()
    assert_invariants(whole.gateway, whole.mocks, answers, may_fail={503})
    after = budget_of(whole.gateway, "tenant", ids["tenant"])
    assert (after.used, after.reserved) == (before.used, 0)


def test_a_stream_outlives_a_short_outage_and_is_charged_when_it_is_over(whole: Fleet, tenant: str, key: str):
    for mock in whole.mocks:
        mock.settings(tokens=400, record_delay_ms=20)
    link = whole.link("dataplane-1", "redis")
    stream = OpenStream(whole.gateway.urls[0], key).start()
    hold(link)
    held_since_s = time.monotonic()
    eventually(lambda: time.monotonic() - held_since_s > 2.0)
    assert not stream.ended
    stream.wait(90.0)
    assert not stream.was_broken_off
    assert stream.last["done"] is True
    link.heal()
    assert_invariants(whole.gateway, whole.mocks)
    [row] = rows_of(whole, tenant, "completion_tokens > 300")
    assert (row["outcome"], row["provenance"]) == ("completed", "reported")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_stream_is_cut_before_its_lease_can_have_ended(whole: Fleet, tenant: str, key: str):
    for mock in whole.mocks:
        mock.settings(tokens=4000, record_delay_ms=20)
    link = whole.link("dataplane-1", "redis")
    stream = OpenStream(whole.gateway.urls[0], key).start()
    hold(link)
    began_s = time.monotonic()
    ended_s = stream.wait(60.0)
    # Renewed for the last time at most ten seconds before the link was held, and never cut before it must be.
    assert ended_s - began_s >= CUT_AFTER_S - 11.0
    assert stream.was_cut
    link.heal()
    assert_invariants(whole.gateway, whole.mocks)
    rows = rows_of(whole, tenant, "completion_tokens > 100")
    assert [row["outcome"] for row in rows if row["outcome"] != "correction"] in (["cut"], ["crashed"])


def rows_of(whole: Fleet, tenant: str, condition: str) -> list:
    return whole.gateway.rows(
        "SELECT outcome, provenance, completion_tokens FROM gateway.audit_log a JOIN gateway.tenants t "
        f"ON t.id = a.tenant_id WHERE t.name = $1 AND {condition}",
        tenant,
    )
