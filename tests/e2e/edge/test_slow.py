"""Clients that take their time over heads, bodies and replies (A1.9): many at once, so that it takes as long as one."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import psutil
import pytest

from tests.e2e.edge.wire import (
    BODY_TIMEOUT_S,
    MESSAGES,
    MODEL,
    WRITE_STALL_TIMEOUT_S,
    Answer,
    Wire,
    ask,
    chat_body,
    request,
)
from tests.e2e.harness import Gateway, MockOllama, eventually

HEADER_TIMEOUT_S = 5.0
# Two cores carry everybody. Less than a head has: whoever waited for one would be later.
LATE_S = 4.5
DRIP_S = 0.2
LISTING = b"GET /api/version HTTP/1.1"
# 24 MB: not even both kernels' buffers together hold that.
RECORDS, RECORD_BYTES = 1500, 16_000
# Hundreds of requests, written without reading one reply; it blocks far earlier.
MANY = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """When the server ended a connection, in seconds since the last sign of life that it accepts as one."""

    after_s: float
    answer: Answer | None


def drip(wire: Wire, piece: bytes) -> None:
    """Sends a piece now and then until the connection is ended."""
    with contextlib.suppress(OSError):
        while wire.is_silent_for(DRIP_S):
            wire.send(piece)


def never_speaks(wire: Wire, _api_key: str) -> None:
    wire.is_silent_for(60)


def stops_within_the_head(wire: Wire, api_key: str) -> None:
    wire.send(request(api_key, start=LISTING)[:-2]).is_silent_for(60)


def drips_headers(wire: Wire, api_key: str) -> None:
    wire.send(request(api_key, start=LISTING)[:-2])
    drip(wire, b"X-A: a\r\n")


def drips_the_request_line(wire: Wire, _api_key: str) -> None:
    wire.send(b"GET /")
    drip(wire, b"a")


def rests_after_a_reply(wire: Wire, api_key: str) -> None:
    answer = wire.send(request(api_key, start=LISTING)).answer()
    assert answer is not None
    assert answer.status == 200
    wire.is_silent_for(60)


def stops_in_the_second_head(wire: Wire, api_key: str) -> None:
    assert wire.send(request(api_key, start=LISTING) + b"GET / HT").answer() is not None
    wire.is_silent_for(60)


def sends_no_body(wire: Wire, api_key: str) -> None:
    wire.send(request(api_key, b"Content-Length: 1000"))


def drips_a_body(wire: Wire, api_key: str) -> None:
    wire.send(request(api_key, b"Content-Length: 100000"))
    drip(wire, b" ")


def drips_chunks(wire: Wire, api_key: str) -> None:
    wire.send(request(api_key, b"Transfer-Encoding: chunked"))
    drip(wire, b"1\r\n \r\n")


def drips_trailers(wire: Wire, api_key: str) -> None:
    body = chat_body()
    wire.send(request(api_key, b"Transfer-Encoding: chunked") + b"%x\r\n%s\r\n0\r\n" % (len(body), body))
    drip(wire, b"X-A: a\r\n")


def sends_no_body_to_a_listing(wire: Wire, api_key: str) -> None:
    wire.send(request(api_key, b"Content-Length: 1000", start=LISTING))


HEADS = [
    never_speaks, stops_within_the_head, drips_headers, drips_the_request_line, rests_after_a_reply,
    stops_in_the_second_head,
]  # fmt: skip
BODIES = [sends_no_body, drips_a_body, drips_chunks, drips_trailers]


def timed(gateway: Gateway, api_key: str, client: Callable[[Wire, str], None]) -> Ending:
    # The server's time begins when it is connected to, which on a busy machine is long before that is known here.
    start_s = time.monotonic()
    with Wire(gateway.url, timeout_s=60) as wire:
        client(wire, api_key)
        answer = wire.answer()
        wire.rest()
        return Ending(after_s=time.monotonic() - start_s, answer=answer)


@pytest.fixture(scope="module")
def endings(gateway: Gateway, api_key: str, backend: MockOllama) -> Iterator[dict[str, Ending]]:
    """How each of the slow clients ended."""
    backend.reset()
    clients = [*HEADS, *BODIES, sends_no_body_to_a_listing]
    with ThreadPoolExecutor(len(clients)) as pool:
        running: dict[str, Future[Ending]] = {
            client.__name__: pool.submit(timed, gateway, api_key, client) for client in clients
        }
        yield {name: future.result() for name, future in running.items()}


@pytest.mark.parametrize("client", HEADS, ids=lambda client: f"A1.9-{client.__name__}")
def test_a_head_has_five_seconds_however_it_drips(endings, client):
    """hyper ends the connection without a word; the time between two requests counts as the next one's head."""
    ending = endings[client.__name__]
    assert ending.answer is None
    assert HEADER_TIMEOUT_S - 0.5 <= ending.after_s <= HEADER_TIMEOUT_S + LATE_S


@pytest.mark.parametrize("client", BODIES, ids=lambda client: f"A1.9-{client.__name__}")
def test_a_body_has_its_deadline_however_it_drips(endings, client):
    ending = endings[client.__name__]
    assert ending.answer is not None
    assert ending.answer.status == 408
    assert ending.answer.closes
    assert BODY_TIMEOUT_S - 0.5 <= ending.after_s <= BODY_TIMEOUT_S + LATE_S


def test_a_listing_does_not_wait_for_a_body(endings):
    """A1.9."""
    ending = endings[sends_no_body_to_a_listing.__name__]
    assert ending.answer is not None
    assert ending.answer.status == 200
    assert ending.after_s < LATE_S


def test_a_body_on_its_way_holds_no_slot(gateway, tenant, backend):
    """A1.9: whoever dawdles is not admitted yet."""
    key = gateway.limited_key(tenant, concurrent=1)
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(Wire(gateway.url)).send(request(key, b"Content-Length: 1000") + b"{")
        assert ask(gateway.url, request(key, body=chat_body())).status == 200
        eventually(lambda: gateway.open_leases() == 0, what="that no slot is held")


def talkative(mock: MockOllama, *, records: int = RECORDS, times: int = 1) -> None:
    """Has the next chats answered with more than anybody wants to read."""
    record: dict[str, Any] = {"model": MODEL, "created_at": "2026-01-01T00:00:00Z", "done": False}
    text = json.dumps({**record, "message": {"role": "assistant", "content": "a" * RECORD_BYTES}}) + "\n"
    last = {"message": {"role": "assistant", "content": ""}, "done": True, "prompt_eval_count": 3, "eval_count": 4096}
    body = text * records + json.dumps({**record, **last}) + "\n"
    fault = {"kind": "status", "status": 200, "content_type": "application/x-ndjson", "body": body}
    mock.script({"fault": fault, "match": {"path": "/api/chat"}, "times": times})


def chat(*, stream: bool) -> bytes:
    return json.dumps({"model": MODEL, "stream": stream, "messages": MESSAGES}).encode()


def connections(worker: psutil.Process, wires: list[Wire]) -> set[int]:
    """Which of the clients' connections the worker still has."""
    ports = {wire.port for wire in wires}
    return {found.raddr.port for found in worker.net_connections() if found.raddr and found.raddr.port in ports}


def test_a_stalled_reader_is_cut_and_its_generation_cancelled(gateway, mock, tenant, key, worker):
    """A1.9: streams that nobody reads, in both dialects; the charge is for what was produced."""
    starts = [b"POST /api/chat HTTP/1.1", b"POST /v1/chat/completions HTTP/1.1"]
    talkative(mock, times=len(starts))
    wires = [Wire(gateway.url, receive_buffer_bytes=4096) for _ in starts]
    with contextlib.ExitStack() as stack:
        for wire, start in zip(wires, starts, strict=True):
            stack.enter_context(wire).send(request(key, start=start, body=chat(stream=True)))
        eventually(lambda: mock.stats()["in_flight"] == len(wires), what="that both are generated")
        eventually(lambda: not mock.stats()["in_flight"], timeout_s=WRITE_STALL_TIMEOUT_S + 20, what="their cancelling")
        eventually(lambda: gateway.open_leases() == 0, what="that no lease is left")
        eventually(lambda: not connections(worker, wires), what="the end of the connections")

    def rows() -> list[str]:
        query = (
            "SELECT a.outcome FROM gateway.audit_log a JOIN gateway.tenants t ON t.id = a.tenant_id "
            "WHERE t.name = $1 AND a.completion_tokens > 0"
        )
        return [row["outcome"] for row in gateway.rows(query, tenant)]

    assert eventually(lambda: rows()[1:] and rows(), timeout_s=20, what="both rows") == ["client_closed"] * 2


def test_replies_that_nobody_reads_end_with_their_connections(gateway, mock, api_key, worker):
    """A1.9: whole replies have left the gateway and wait in buffers; for pipelined ones nobody needs a key."""
    talkative(mock, records=300)
    whole, pipelined = (Wire(gateway.url, receive_buffer_bytes=4096, timeout_s=1) for _ in range(2))
    with whole, pipelined:
        whole.send(request(api_key, body=chat(stream=False)))
        one = request(None, start=b"GET / HTTP/1.1", content_type=None)
        with contextlib.suppress(TimeoutError):
            for _ in range(MANY):
                pipelined.offer(one * 100)
        wires = [whole, pipelined]
        eventually(lambda: not mock.stats()["in_flight"], what="the end of the generation")
        eventually(lambda: not connections(worker, wires), timeout_s=WRITE_STALL_TIMEOUT_S + 20, what="their end")


def test_who_reads_slowly_but_steadily_gets_everything(gateway, mock, api_key):
    """A1.9: for longer than any pause may be."""
    talkative(mock)
    start_s = time.monotonic()
    with Wire(gateway.url, receive_buffer_bytes=65_536) as wire:
        wire.send(request(api_key, b"Connection: close", body=chat(stream=True)))
        answer = wire.answer(pause_s=0.01)
    assert answer is not None
    assert not answer.truncated
    assert json.loads(answer.body.splitlines()[-1])["done"] is True
    assert time.monotonic() - start_s > WRITE_STALL_TIMEOUT_S + 1
