"""When the threads of the server get the core for a reply that was handed to them."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import pytest

from dataplane import process
from dataplane.api.dialect import Caps
from dataplane.api.exchange import Edge, HTTPExchange
from dataplane.api.watching import Departures
from dataplane.interrupt import Interrupt
from dataplane.values import Arrival, Credentials, Dialect, RequestId

FIRST = "the server goes first"


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happens, in order: messages to the server by their type, and when it was let first."""
    seen: list[str] = []
    monkeypatch.setattr(process, "let_the_server_go_first", lambda: seen.append(FIRST))
    return seen


def exchange(departures: Departures, seen: list[str]) -> HTTPExchange:
    async def send(message: MutableMapping[str, Any]) -> None:
        seen.append(message["type"])

    async def receive() -> Any:
        raise AssertionError("nothing is read")

    arrival = Arrival(
        request_id=RequestId("0"),
        dialect=Dialect.OLLAMA,
        endpoint="/",
        client_ip="192.0.2.1",
        created_at_ms=0,
        started_s=0,
    )
    edge = Edge(
        max_body_bytes=1,
        body_timeout_s=1,
        write_stall_timeout_s=1,
        request_id_header=b"x",
        caps=Caps(max_num_predict=1),
    )
    return HTTPExchange(
        endpoint=None,
        edge=edge,
        departures=departures,
        arrival=arrival,
        credentials=Credentials(authorization=(), client_ip="192.0.2.1"),
        interrupt=Interrupt(),
        fields={},
        wants_body=True,
        receive=receive,
        send=send,  # type: ignore[arg-type] # ASGI's types are looser
    )


async def test_a_reply_that_is_alone_leaves_before_its_request_is_put_away(seen):
    await exchange(Departures(), seen).reply(b"text/plain", b"whole")
    assert seen == ["http.response.start", "http.response.body", FIRST]


async def test_a_reply_beside_others_leaves_when_the_loop_waits(seen):
    departures = Departures()
    one, other = exchange(departures, seen), exchange(departures, seen)
    departures.expect(one)
    departures.expect(other)
    await one.reply(b"text/plain", b"whole")
    assert FIRST not in seen


async def test_an_event_that_more_may_follow_waits_for_the_loop(seen):
    await exchange(Departures(), seen).end_with(b"event")
    assert seen == ["http.response.body"]
