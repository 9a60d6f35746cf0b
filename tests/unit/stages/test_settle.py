"""One event per request and one settlement per lease, however the request ends."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from dataplane.errors import (
    AuthenticationError,
    CannotCheckError,
    ClientClosedError,
    ForbiddenError,
    GatewayError,
    LeaseLostError,
    LimitExceededError,
    NotReadyError,
    StreamBrokenError,
    UpstreamError,
)
from dataplane.interrupt import Interrupt
from dataplane.native import EmbedReply, Record
from dataplane.stages.settle import OpenLease, Settle
from dataplane.values import Arrival, InferenceRequest, Lease, Principal, Usage
from shared.records import UsageEvent
from tests.fakes.manual_clock import ManualClock
from tests.unit.stages.principals import ARRIVAL, INFERENCE, LEASE, PRINCIPAL


class Seen:
    """A meter that has seen what it is told."""

    def __init__(self, *, keeps_text: bool) -> None:
        self.backend = ""
        self.complete = False
        self.ttft_ms: int | None = 12
        self.reply_text = "hello" if keeps_text else None

    def begin(self, backend: str) -> None:
        self.backend = backend

    def see(self, record: Record | EmbedReply) -> None:
        self.complete = True

    def believable[T: (Record, EmbedReply)](self, final: T) -> T:
        return final

    def usage(self) -> Usage:
        return Usage(prompt_tokens=3, completion_tokens=5, provenance="reported")


class World:
    """Settlements, refusals and renewals that remember."""

    def __init__(self) -> None:
        self.settled: list[UsageEvent] = []
        self.appended: list[UsageEvent] = []
        self.refused: list[UsageEvent] = []
        self.held: list[str] = []
        self.observed: list[tuple[str | None, str | None, int]] = []
        self.tokens: list[tuple[str, int, int]] = []
        self.clock = ManualClock(1000.5)
        self.stage = Settle(
            settlements=self,
            refusals=self,
            renewals=self,
            meter=lambda _inference, _lease, keeps_text: Seen(keeps_text=keeps_text),
            observer=self,
            clock=self.clock,
        )

    def settle(self, lease: Lease, principal: Principal, event: UsageEvent) -> None:
        assert lease is LEASE
        self.settled.append(event)

    def append(self, principal: Principal, event: UsageEvent) -> None:
        self.appended.append(event)

    def add(self, principal: Principal, event: UsageEvent) -> None:
        self.refused.append(event)

    def request_ended(
        self, *, arrival: Arrival, principal: Principal | None, event: UsageEvent | None, status: int, duration_s: float
    ) -> None:
        assert arrival is ARRIVAL
        assert duration_s >= 0
        tenant = None if principal is None else principal.tenant_name
        self.observed.append((tenant, None if event is None else event.model, status))
        if event is not None:
            self.tokens.append((event.model, event.prompt_tokens, event.completion_tokens))

    def hold(self, lease: Lease, principal: Principal, interrupt: Interrupt) -> None:
        self.held.append(lease.lease_id)

    def release(self, lease: Lease) -> None:
        self.held.remove(lease.lease_id)

    def holding(
        self,
        *,
        principal: Principal = PRINCIPAL,
        inference: InferenceRequest = INFERENCE,
        interrupt: Interrupt | None = None,
    ) -> OpenLease:
        return self.stage.holding(LEASE, principal, ARRIVAL, inference, interrupt or Interrupt())


@pytest.fixture
def world() -> World:
    return World()


def test_completed_request_is_charged_what_was_measured(world: World):
    with world.holding() as held:
        assert world.held == [LEASE.lease_id]
        held.meter.begin("one")
        held.completed()
        assert world.held == []
    [event] = world.settled
    assert event == UsageEvent(
        event_id=LEASE.lease_id,
        request_id=ARRIVAL.request_id,
        tenant_id=PRINCIPAL.tenant_id,
        key_id=PRINCIPAL.key_id,
        day="20261120",
        created_at_ms=ARRIVAL.created_at_ms,
        dialect="ollama",
        endpoint="/api/chat",
        outcome="completed",
        status=200,
        model="llama3:latest",
        backend="one",
        prompt_tokens=3,
        completion_tokens=5,
        provenance="reported",
        duration_ms=500,
        ttft_ms=12,
        client_ip="198.51.100.7",
    )


def test_metrics_hear_of_every_request_once(world: World):
    with world.holding() as held:
        held.meter.begin("one")
        held.completed()
        held.completed()
    world.stage.refused(PRINCIPAL, ARRIVAL, LimitExceededError("concurrency", retry_after_s=1), status=429)
    world.stage.listed(PRINCIPAL, ARRIVAL)
    world.stage.unauthenticated(ARRIVAL, status=401)
    tenant = PRINCIPAL.tenant_name
    assert world.observed == [
        (tenant, "llama3:latest", 200),
        (tenant, "", 429),
        (tenant, "", 200),
        (None, None, 401),
    ]
    assert world.tokens[0] == ("llama3:latest", 3, 5)


def test_lease_is_settled_once_whatever_follows(world: World):
    error = StreamBrokenError()
    with pytest.raises(StreamBrokenError), world.holding() as held:
        held.completed()
        held.completed()
        held.failed(error, status=502)
        raise error
    assert [event.outcome for event in world.settled] == ["completed"]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (UpstreamError(), "upstream_failed"),
        (StreamBrokenError(), "upstream_failed"),
        (ClientClosedError(), "client_closed"),
        (LeaseLostError(), "cut"),
        (NotReadyError(), "refused"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_error_is_written_down_as_what_it_is(world: World, error: GatewayError, outcome: str):
    with world.holding() as held:
        held.meter.begin("one")
        held.failed(error, status=418)
    [event] = world.settled
    assert (event.outcome, event.status, event.prompt_tokens) == (outcome, 418, 3)


def test_what_no_backend_answered_costs_nothing(world: World):
    with world.holding() as held:
        held.failed(UpstreamError(), status=502)
    [event] = world.settled
    assert (event.prompt_tokens, event.completion_tokens, event.backend) == (0, 0, "")


async def interrupted(world: World, reason: GatewayError) -> None:
    interrupt = Interrupt()
    entered = asyncio.Event()

    async def request() -> None:
        with interrupt, world.holding(interrupt=interrupt):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(request())
    await entered.wait()
    interrupt.fire(reason)
    with pytest.raises(type(reason)):
        await task


@pytest.mark.parametrize(
    ("reason", "outcome", "status", "tokens"),
    [
        (ClientClosedError(), "client_closed", 499, 8),
        (LeaseLostError(), "cut", 503, 0),
        (NotReadyError("draining"), "cut", 503, 0),
    ],
    ids=["client", "lease", "drain"],
)
async def test_interrupted_request_is_settled(
    world: World, reason: GatewayError, outcome: str, status: int, tokens: int
):
    await interrupted(world, reason)
    [event] = world.settled
    assert (event.outcome, event.status) == (outcome, status)
    assert event.prompt_tokens + event.completion_tokens == tokens
    assert world.held == []


async def test_cancelled_request_is_settled(world: World):
    async def request() -> None:
        with world.holding():
            await asyncio.Event().wait()

    task = asyncio.create_task(request())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [event.outcome for event in world.settled] == ["cut"]


def test_fault_of_our_own_is_settled_as_a_crash(world: World):
    with pytest.raises(ZeroDivisionError), world.holding():
        raise ZeroDivisionError
    assert [(event.outcome, event.status) for event in world.settled] == [("crashed", 500)]


@pytest.mark.parametrize(("complete", "outcome"), [(True, "completed"), (False, "crashed")])
def test_end_without_a_word_is_judged_by_the_meter(world: World, complete: bool, outcome: str):
    with world.holding() as held:
        if complete:
            held.meter.see(Record())
    assert [event.outcome for event in world.settled] == [outcome]


@pytest.mark.parametrize("days", [None, 7])
def test_texts_are_kept_only_with_the_prompt_log(world: World, days: int | None):
    with world.holding(principal=msgspec.structs.replace(PRINCIPAL, prompt_log_days=days)) as held:
        held.meter.begin("one")
        held.completed()
    [event] = world.settled
    if days is None:
        assert (event.prompt_log_days, event.prompt, event.reply) == (None, None, None)
    else:
        assert event.prompt_log_days == 7
        assert event.prompt == '{"messages":[{"role":"user","content":"hi"}],"options":{"num_predict":16}}'
        assert event.reply == "hello"


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (AuthenticationError("revoked"), "revoked"),
        (ForbiddenError("model_not_allowed"), "model_not_allowed"),
        (LimitExceededError("concurrency", retry_after_s=1), "concurrency"),
        (CannotCheckError("no Redis"), "cannot_check"),
        (ClientClosedError(), "client_closed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refusal_is_written_down_in_a_word_of_ours(world: World, error: GatewayError, word: str):
    world.stage.refused(PRINCIPAL, ARRIVAL, error, status=418)
    [event] = world.refused
    assert (event.refusal, event.status, event.outcome, event.day) == (word, 418, "refused", "20261121")
    assert event.event_id == ARRIVAL.request_id
    assert world.settled == world.appended == []


def test_listing_is_written_down(world: World):
    world.stage.listed(PRINCIPAL, ARRIVAL)
    [event] = world.appended
    assert (event.outcome, event.status, event.prompt_tokens) == ("completed", 200, 0)
