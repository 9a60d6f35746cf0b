"""What travels to a backend, byte by byte, and when its bytes come back."""

import asyncio
import sys
import time

import httpx
import msgspec
import pytest

from dataplane.upstream.faults import Blame, ReplyError
from dataplane.upstream.transport import encoded_head
from dataplane.values import Backend, Operation
from deploy.mock_ollama import MockOllama
from deploy.mock_ollama.bad_content import Redirect
from tests.fakes.waiting import until
from tests.integration.upstream import exchange
from tests.integration.upstream.gateway import REQUEST_ID, Gateway, candidate, gateway, request
from tests.integration.upstream.raw_server import DONE, END, HEAD, WORD, Call, chunk, raw_server

# Connecting may take a second here; deadlines are further away.
VANISHED_WITHIN_S = 8
# At once: whatever else would end a request has five seconds.
CLOSED_WITHIN_S = 2.0


async def answered(call: Call) -> None:
    await call.send(HEAD + chunk(WORD) + chunk(DONE) + END)


@pytest.mark.parametrize("operation", list(Operation))
async def test_exactly_the_fixed_headers_are_sent(operation, monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login user password secret\n")
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("HOME", str(tmp_path))
    async with MockOllama() as mock, gateway(mock) as one:
        await one.text(request(operation))
        (recorded,) = mock.requests
        accept = "application/json" if operation is Operation.EMBED else "application/x-ndjson"
        assert recorded.raw.head.startswith(b"POST " + operation.value.encode() + b" HTTP/1.1\r\n")
        assert dict(recorded.headers) == {
            "host": mock.url.removeprefix("http://"),
            "content-type": "application/json",
            "content-length": str(len(recorded.raw.body)),
            "accept": accept,
            "user-agent": "neuronetz-gateway",
            "x-request-id": "0123456789abcdef",
        }
        assert len(recorded.headers) == 6


async def test_the_backends_own_credential_and_spelling_are_sent():
    async with MockOllama() as mock, gateway() as one:
        backend = Backend(name="a", url=mock.url, priority=0, credential=("X-Token", "Bearer sesame"))
        target = msgspec.structs.replace(candidate(mock.url, model="LLAMA3.2:latest"), backend=backend)
        async with one.backends.attempt(target, request(), REQUEST_ID) as reply:
            async for _ in reply:
                pass
        (recorded,) = mock.requests
        assert dict(recorded.headers)["X-Token"] == "Bearer sesame"
        assert len(recorded.headers) == 7
        assert recorded.raw.body == (
            b'{"messages":[{"role":"user","content":"hi"}],"options":{"num_predict":8},'
            b'"model":"LLAMA3.2:latest","stream":true}'
        )


async def test_a_changed_credential_is_used_at_once():
    async with MockOllama() as mock, gateway() as one:
        for token in ("old", "new"):
            backend = Backend(name="a", url=mock.url, priority=0, credential=("authorization", token))
            target = msgspec.structs.replace(candidate(mock.url), backend=backend)
            async with one.backends.attempt(target, request(), REQUEST_ID):
                pass
        assert [dict(recorded.headers)["authorization"] for recorded in mock.requests] == ["old", "new"]


async def test_the_first_record_arrives_when_it_is_sent():
    goes_on = asyncio.Event()

    async def answer(call: Call) -> None:
        await call.send(HEAD + chunk(WORD))
        await goes_on.wait()
        await call.send(chunk(WORD) + chunk(DONE) + END)

    async with raw_server(answer) as server, gateway(server.url) as one, asyncio.timeout(20):
        batches = one.records()
        assert len(await anext(batches)) == 1
        goes_on.set()
        assert sum([len(batch) async for batch in batches]) == 2


async def test_records_that_are_there_together_come_together():
    async def answer(call: Call) -> None:
        await call.send(HEAD + chunk(WORD) * 20 + chunk(DONE) + END)

    async with raw_server(answer) as server, gateway(server.url) as one:
        sizes = [len(batch) async for batch in one.records()]
        assert sum(sizes) == 21
        assert len(sizes) < 21


@pytest.mark.parametrize("sends_head", [False, True])
@pytest.mark.parametrize("sends_record", [False, True])
async def test_leaving_closes_the_connection_at_once(sends_head, sends_record):
    asked, closed = asyncio.Event(), asyncio.Event()

    async def answer(call: Call) -> None:
        if sends_head:
            await call.send(HEAD + (chunk(WORD) if sends_record else b""))
        asked.set()
        await call.closed_by_peer()
        closed.set()

    async with raw_server(answer) as server, gateway(server.url) as one, asyncio.timeout(20):
        task = asyncio.create_task(one.text())
        await asked.wait()
        task.cancel()
        cancelled_s = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await task
        await closed.wait()
        assert time.monotonic() - cancelled_s < CLOSED_WITHIN_S
        assert one.backends.in_flight("a") == 0


@pytest.mark.parametrize("splits_end", [False, True])
async def test_a_connection_is_used_again_after_a_whole_reply(splits_end):
    async def answer(call: Call) -> None:
        await call.send(HEAD + chunk(WORD) + chunk(DONE))
        if splits_end:
            await asyncio.sleep(0)
        await call.send(END)

    async with raw_server(answer) as server, gateway(server.url) as one:
        for _ in range(5):
            await one.text()
        assert server.connections == 1
        assert len(server.calls) == 5


async def test_a_connection_that_goes_on_after_the_final_record_is_closed():
    closed = asyncio.Event()

    async def answer(call: Call) -> None:
        await call.send(HEAD + chunk(DONE) + chunk(WORD))
        await call.closed_by_peer()
        closed.set()

    async with raw_server(answer) as server, gateway(server.url) as one, asyncio.timeout(20):
        assert await one.text() == ""
        assert one.meter.complete
        await closed.wait()


async def test_a_redirect_is_not_followed():
    async with MockOllama() as mock, MockOllama() as elsewhere, exchange.pool() as transport:
        mock.script(Redirect(location=elsewhere.url + "/api/chat"))
        status, _, _ = await exchange.answered(transport, f"{mock.url}/api/chat")
        assert status == 307
        assert elsewhere.requests == []


async def test_an_exchange_that_is_closed_twice_gives_its_connection_back_once():
    async with raw_server(answered) as server, exchange.pool() as transport:
        with exchange.exchange(transport, server.url) as source:
            await source.head(exchange.post(server.url), source.after(5))
            assert await source.whole(max_bytes=1000, due_s=source.after(5)) == WORD + DONE
            source.close()
            assert transport.connections == {"busy": 0, "idle": 1}
        assert transport.connections == {"busy": 0, "idle": 1}


@pytest.mark.parametrize(
    "reply",
    [
        b"\x00garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 40_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ],
)
async def test_a_reply_that_is_no_proper_http_is_a_fault(reply):
    async def answer(call: Call) -> None:
        await call.send(reply)
        await call.closed_by_peer()

    async with raw_server(answer) as server, exchange.pool() as transport, asyncio.timeout(20):
        with pytest.raises(ReplyError) as fault:
            await exchange.answered(transport, server.url)
        assert isinstance(fault.value.__cause__, httpx.RemoteProtocolError)
        assert fault.value.blame is Blame.BAD_REPLY


async def test_interim_replies_and_pieces_of_a_head_are_no_reply_yet():
    async def answer(call: Call) -> None:
        await call.send(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 20")
        await asyncio.sleep(0)
        await call.send(b"0 OK\r\nX-Test: \xff\r\nContent-Length: 2\r\n\r\nok")

    async with raw_server(answer) as server, exchange.pool() as transport:
        for _ in range(2):
            status, headers, body = await exchange.answered(transport, server.url)
            assert status == 200
            assert list(headers) == [(b"x-test", b"\xff"), (b"content-length", b"2")]
            assert body == b"ok"
        assert server.connections == 1


async def test_a_body_without_a_length_ends_with_its_connection():
    async def answer(call: Call) -> None:
        await call.send(b"HTTP/1.0 200 OK\r\n\r\nall of it")
        raise ConnectionError

    async with raw_server(answer) as server, exchange.pool() as transport:
        _, _, body = await exchange.answered(transport, server.url)
        assert body == b"all of it"


@pytest.mark.parametrize(
    ("url", "cause", "blame"),
    [
        ("http://127.0.0.1:1/", httpx.ConnectError, Blame.UNREACHABLE),
        ("http://nowhere.invalid/", httpx.ConnectError, Blame.UNREACHABLE),
        ("ftp://127.0.0.1/", httpx.UnsupportedProtocol, Blame.BAD_REPLY),
    ],
)
async def test_a_backend_that_cannot_be_reached_is_a_fault(url, cause, blame):
    async with exchange.pool() as transport:
        with pytest.raises(ReplyError) as fault:
            await exchange.answered(transport, url)
        assert type(fault.value.__cause__) is cause
        assert fault.value.blame is blame


async def test_a_transport_that_is_closed_connects_no_more():
    async with raw_server(answered) as server, exchange.pool() as transport:
        await transport.aclose()
        with pytest.raises(ReplyError):
            await exchange.answered(transport, server.url)
        assert server.connections == 0


@pytest.mark.parametrize("value", [b"a\r\nX-Injected: 1", b"a\nb", b"a\rb", b"a\0b"])
def test_a_header_cannot_break_out_of_its_line(value):
    with pytest.raises(httpx.LocalProtocolError):
        encoded_head("POST", httpx.URL("http://127.0.0.1:1/"), [(b"X", value)])


async def test_an_idle_connection_that_speaks_is_not_used_again():
    async def answer(call: Call) -> None:
        await call.send(HEAD + chunk(DONE) + END)
        await asyncio.sleep(0)
        await call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await call.closed_by_peer()

    async with raw_server(answer) as server, gateway(server.url) as one:
        await one.text()
        await until(lambda: "open=0" in repr(one.backends.transport))
        await one.text()
        assert server.connections == 2


async def test_a_fast_backend_is_not_read_ahead_of_a_slow_reader():
    sent = 0

    async def answer(call: Call) -> None:
        nonlocal sent
        await call.send(HEAD)
        while True:
            await call.send(chunk(WORD * 800))
            sent += 800 * len(WORD)

    async with raw_server(answer) as server, gateway(server.url) as one:
        batches = one.records()
        await anext(batches)
        before, steady = -1, 0
        while steady < 20:
            steady = steady + 1 if sent == before else 0
            before = sent
            await asyncio.sleep(0.005)
        # Socket buffers of the kernel, and little of ours.
        assert sent < 8 * 1024 * 1024
        await batches.aclose()


async def test_the_end_of_an_interrupted_read_leaves_nothing_open():
    async with MockOllama() as mock, gateway(mock) as one:
        mock.set_settings(tokens=1000, record_delay_ms=50)
        batches = one.records(request(num_predict=1000))
        await anext(batches)
        await batches.aclose()
        await until(lambda: mock.stats()["in_flight"] == 0, timeout_s=CLOSED_WITHIN_S)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's filters are Linux's")
async def test_a_machine_that_vanishes_is_noticed_although_its_connection_was_idle():
    async def answer_and_vanish(call: Call) -> None:
        await answered(call)
        call.vanish()

    async with raw_server(answer_and_vanish) as gone, MockOllama() as good:
        async with gateway(gone.url, good, connect_s=1, first_record_s=30, total_s=60) as one:
            assert await one.text() == "word"
            await until(lambda: "idle=1" in repr(one.backends.transport))
            assert await _asked_elsewhere(one, good) < VANISHED_WITHIN_S
        assert gone.connections == 1


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's filters are Linux's")
async def test_a_machine_that_vanishes_is_noticed_while_its_first_record_is_waited_for():
    async def vanish(call: Call) -> None:
        # What has arrived is acknowledged first.
        await call.send(HEAD)
        await asyncio.sleep(0)
        call.vanish()
        await call.closed_by_peer()

    async with (
        raw_server(vanish) as gone,
        MockOllama() as good,
        gateway(gone.url, good, connect_s=1, first_record_s=30, total_s=60) as one,
    ):
        assert await _asked_elsewhere(one, good) < VANISHED_WITHIN_S


async def _asked_elsewhere(one: Gateway, good: MockOllama) -> float:
    """How long it took, in seconds, until the other backend had answered."""
    started_s = time.monotonic()
    assert await one.text()
    assert len(good.requests) == 1
    return time.monotonic() - started_s
