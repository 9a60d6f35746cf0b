"""Sliding windows on replicas whose clocks are minutes apart: no sixty seconds hold more than the limit.

All of it happens during one minute and a bit, in which everybody asks far more often than allowed.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import pytest

from tests.e2e.accounts import assert_invariants, scope_ids
from tests.e2e.crowd import Answer, Traffic, ask_all, chat
from tests.e2e.harness import Gateway
from tests.e2e.skewed import skewed_data_planes

SKEW_S = 300
WINDOW_S = 60.0
HAMMERED_S = 68.0
# Exact times are kept for the first, one-second buckets for the second.
EXACT_RPM, BUCKETS_RPM = 30, 150
TPM = 1000
OUTPUT = 400
EARLY_S = 2.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class Patient(NamedTuple):
    """What a client was told that spent its limit, asked a little early, and then exactly when it was told to."""

    refused: Answer
    early: Answer
    punctual: Answer


class Minute(NamedTuple):
    """All that happened."""

    hammered: dict[str, Traffic]
    patient: dict[str, Patient]
    arrived_at_s: dict[str, float]
    tenant_ids: dict[str, str]


def spend_and_wait(urls: Sequence[str], key: str, bodies: list[dict[str, Any]]) -> Patient:
    """Spends a limit at once, then asks once too early and once when ``Retry-After`` is over."""
    refused = next(answer for answer in ask_all(urls, key, bodies) if answer.status == 429)
    again_at_s = refused.answered_at_s + refused.retry_after_s
    time.sleep(max(0.0, again_at_s - EARLY_S - time.monotonic()))
    [early] = ask_all(urls[1:], key, bodies[:1])
    time.sleep(max(0.0, again_at_s - time.monotonic()))
    [punctual] = ask_all(urls[2:], key, bodies[:1])
    return Patient(refused, early, punctual)


@pytest.fixture(scope="module")
def minute(fleet, fleet_mock, tmp_path_factory) -> Iterator[Minute]:
    fleet_mock.reset()
    # Replies as long as they may be: nothing is given back at the settlement.
    fleet_mock.settings(tokens=OUTPUT, tokens_per_record=100)
    name = f"windows-{uuid.uuid4().hex[:8]}"
    fleet.tenant(name)
    # The second limit is its tenant's, which two keys share.
    fleet.tenant(f"{name}-shared", rpm=BUCKETS_RPM)
    keys = {"exact": fleet.limited_key(name, rpm=EXACT_RPM), "buckets": fleet.key(f"{name}-shared")}
    waiting = {
        "requests": (fleet.limited_key(name, rpm=3), [chat()] * 6),
        "requests in buckets": (fleet.limited_key(name, rpm=130), [chat()] * 140),
        "tokens": (fleet.limited_key(name, tpm=TPM), [chat(num_predict=OUTPUT)] * 4),
    }
    with skewed_data_planes(fleet, tmp_path_factory.mktemp("skewed"), (SKEW_S, -SKEW_S)) as skewed:
        urls = [fleet.urls[0], skewed[0], fleet.urls[1], skewed[1]]
        hammered = {
            kind: Traffic(urls, key, clients=8, rest_s=0.4, body=partial(_numbered, kind)) for kind, key in keys.items()
        }
        with ThreadPoolExecutor(len(waiting)) as pool, contextlib.ExitStack() as traffic:
            ended_at_s = time.monotonic() + HAMMERED_S
            for each in hammered.values():
                traffic.enter_context(each)
            patient: dict[str, Future[Patient]] = {
                kind: pool.submit(spend_and_wait, urls, key, bodies) for kind, (key, bodies) in waiting.items()
            }
            time.sleep(max(0.0, ended_at_s - time.monotonic()))
        arrived = {
            request["json"]["messages"][-1]["content"]: request["arrived_at_s"] for request in fleet_mock.requests()
        }
        ids = {kind: scope_ids(fleet, name if kind == "exact" else f"{name}-shared", key) for kind, key in keys.items()}
        yield Minute(
            hammered,
            {kind: future.result() for kind, future in patient.items()},
            arrived,
            {kind: each["tenant"] for kind, each in ids.items()},
        )


def _numbered(kind: str, number: int) -> dict[str, Any]:
    return chat(text=f"{kind}-{number}", num_predict=OUTPUT)


def admitted(minute: Minute, kind: str) -> list[tuple[float, float]]:
    """When each admitted request was sent and when the upstream had it: its admission lies between the two."""
    return sorted(
        (answer.asked_at_s, minute.arrived_at_s[f"{kind}-{number}"])
        for number, answer in minute.hammered[kind].numbered.items()
        if answer.status == 200
    )


@pytest.mark.parametrize(("kind", "limit"), [("exact", EXACT_RPM), ("buckets", BUCKETS_RPM)])
def test_no_sixty_seconds_hold_more_requests_than_the_limit(minute, kind, limit):
    spans = admitted(minute, kind)
    fullest = max(sum(start <= sent and seen < start + WINDOW_S for sent, seen in spans) for start, _ in spans)
    assert fullest == limit
    # When the first ones are a minute old, others may enter: it is a window that slides, not a bucket that stays full.
    assert len(spans) > limit
    refused = [answer for answer in minute.hammered[kind].answers if answer.status != 200]
    assert {answer.status for answer in refused} == {429}
    assert {answer.code for answer in refused} == {"requests_limit_exceeded"}
    assert all(1 <= answer.retry_after_s <= WINDOW_S + 1 for answer in refused)


def test_the_clocks_were_really_wrong(fleet: Gateway, minute):
    query = (
        "SELECT round(extract(epoch FROM min(created_at) - now()))::int AS behind, "
        "round(extract(epoch FROM max(created_at) - now()))::int AS ahead FROM gateway.audit_log WHERE tenant_id = $1"
    )
    [row] = fleet.rows(query, uuid.UUID(minute.tenant_ids["exact"]))
    assert row["behind"] < -SKEW_S
    assert row["ahead"] > SKEW_S - 2 * HAMMERED_S


@pytest.mark.parametrize("kind", ["requests", "requests in buckets", "tokens"])
def test_who_waits_as_long_as_told_is_served_and_who_comes_early_is_not(minute, kind):
    refused, early, punctual = minute.patient[kind]
    name = kind.split()[0]
    assert refused.code == early.code == f"{name}_limit_exceeded"
    assert early.status == 429
    assert early.retry_after_s <= EARLY_S + 1
    assert punctual.status == 200


def test_the_books_agree_after_that_minute_and_every_refusal_was_counted(fleet, fleet_mock, minute):
    answers = [answer for traffic in minute.hammered.values() for answer in traffic.answers]
    assert_invariants(fleet, [fleet_mock], answers)
    query = (
        "SELECT coalesce(sum(occurrences), 0)::int AS counted, count(*) AS rows FROM gateway.audit_log "
        "WHERE tenant_id = $1 AND outcome = 'refused' AND refusal = 'requests'"
    )
    for kind, traffic in minute.hammered.items():
        refused = sum(answer.status == 429 for answer in traffic.answers)
        deadline_s = time.monotonic() + 60
        while (row := fleet.rows(query, uuid.UUID(minute.tenant_ids[kind]))[0])["counted"] < refused:
            assert time.monotonic() < deadline_s, f"{kind}: {row['counted']} of {refused}"
            time.sleep(0.2)
        if kind == "buckets":
            assert row["counted"] == refused
            # One row at once and one for the rest of each ten seconds, of each of four workers.
            assert row["rows"] <= 4 * 2 * (HAMMERED_S / 10 + 2)
