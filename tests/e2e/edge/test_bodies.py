"""How long a body may be, what it may be said to be, and when it is asked for (A1.7, A1.8)."""

from __future__ import annotations

import gzip
import time
import zlib
from typing import Any

import psutil
import pytest

from tests.e2e.edge.wire import Wire, answers, ask, chat_body, chunked, request

CAP_BYTES = 262_144
CONTINUE = b"Expect: 100-continue"
# Far longer than the rest of a refused body is waited for.
SILENT_FOR_S = 10.0

# What a request is refused for before its body is looked at: the status, and what is different about it.
REFUSED: dict[str, tuple[int, dict[str, Any]]] = {
    "bad-key": (401, {"api_key": "nz_none"}),
    "no-key": (401, {"api_key": None}),
    "management": (403, {"start": b"POST /api/push HTTP/1.1"}),
    "unknown": (404, {"start": b"POST /nope HTTP/1.1"}),
    "media": (415, {"content_type": b"application/xml"}),
    "host": (400, {"host": None}),
}


def declared(api_key: str, size: int, *fields: bytes) -> bytes:
    return request(api_key, b"Content-Length: %d" % size, *fields)


@pytest.mark.parametrize(("size", "status"), [(CAP_BYTES, 200), (CAP_BYTES + 1, 413)])
@pytest.mark.parametrize("framing", ["declared", "one-chunk", "many-chunks"])
def test_the_cap_is_exact(gateway, mock, api_key, size, status, framing):
    """A1.7."""
    body = chat_body(size)
    assert len(body) == size
    if framing == "declared":
        data = request(api_key, body=body)
    else:
        step = size if framing == "one-chunk" else 1000
        parts = [body[at : at + step] for at in range(0, size, step)]
        data = request(api_key, b"Transfer-Encoding: chunked") + chunked(*parts)
    assert ask(gateway.url, data).status == status
    assert len(mock.requests()) == (status == 200)


def test_a_body_that_is_too_long_is_refused_before_it_is_sent(wire, mock, api_key):
    """A1.7: 413, and no 100 before it."""
    answer = wire.send(declared(api_key, CAP_BYTES + 1, CONTINUE)).answer()
    assert answer.status == 413
    assert answer.closes
    assert wire.closed_within(2)
    assert mock.requests() == []


@pytest.mark.parametrize("size", [2**31, 2**32, 2**63 - 1, 2**64 - 2])
def test_an_absurd_length_is_only_too_long(gateway, api_key, size):
    """A1.7."""
    assert ask(gateway.url, declared(api_key, size)).status in (413, 431)


def test_endless_chunks_end_at_the_cap(wire, mock, api_key, worker):
    """A1.7: what is over the cap is not kept."""
    before_bytes = worker.memory_info().rss
    wire.send(request(api_key, b"Transfer-Encoding: chunked"))
    for _ in range(200):
        wire.offer(b"10000\r\n" + b" " * 65_536 + b"\r\n")
    answer = wire.answer()
    assert answer is None or answer.status == 413
    assert worker.memory_info().rss - before_bytes < 20_000_000
    assert mock.requests() == []


def test_an_honest_expectation_is_answered_before_the_body(wire, mock, api_key):
    """A1.7."""
    body = chat_body()
    interim = wire.send(declared(api_key, len(body), CONTINUE)).answer()
    assert interim.status == 100
    assert mock.requests() == []
    assert wire.send(body).answer().status == 200


@pytest.mark.parametrize(("status", "change"), REFUSED.values(), ids=REFUSED)
def test_nobody_is_asked_for_a_body_in_vain(wire, mock, api_key, status, change):
    """A1.7: the refusal comes instead of the 100."""
    answer = wire.send(
        request(**{"api_key": api_key, **change})[:-2] + CONTINUE + b"\r\nContent-Length: 9\r\n\r\n"
    ).answer()
    assert answer.status == status
    assert wire.closed_within(2)
    assert mock.requests() == []


@pytest.mark.parametrize("size", [300_000, 5_000_000])
def test_who_sends_all_of_it_regardless_can_read_the_refusal(gateway, mock, api_key, size):
    """A1.7: clients that write first and read later."""
    [answer] = answers(gateway.url, request(api_key, body=b"a" * size))
    assert answer.status == 413
    assert mock.requests() == []


@pytest.mark.parametrize(("status", "change"), [(413, {}), *REFUSED.values()], ids=["too-long", *REFUSED])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_who_is_still_sending_when_refused_is_not_reset(wire, mock, api_key, status, change, framing):
    """A1.7: a reset would overtake the refusal, and a proxy that writes sees nothing but its failed write."""
    head = request(**{"api_key": api_key, **change})[:-2]
    size = CAP_BYTES + 100_000
    if framing == "length":
        wire.send(head + b"Content-Length: %d\r\n\r\n" % size)
        parts = [b"a" * 20_000] * (size // 20_000) + [b"a" * (size % 20_000)]
    else:
        wire.send(head + b"Transfer-Encoding: chunked\r\n\r\n")
        parts = [b"4e20\r\n" + b"a" * 20_000 + b"\r\n"] * (size // 20_000) + [b"0\r\n\r\n"]
    for part in parts:
        time.sleep(0.005)
        wire.send(part)
    answer = wire.answer()
    assert answer.status == status
    if answer.closes:
        assert wire.rest() == b""
    else:
        assert wire.send(request(api_key, body=chat_body())).answer().status == 200
    assert not wire.was_reset


def test_who_falls_silent_when_refused_is_cut(gateway, api_key):
    """A1.9: no refused request keeps its connection by promising a body, whatever it was refused for."""
    for key, start in ((None, b"POST /api/chat"), ("nz_none", b"POST /api/chat"), (api_key, b"POST /api/pull")):
        with Wire(gateway.url) as wire:
            wire.send(request(key, b"Content-Length: 100000", start=start + b" HTTP/1.1") + b"{")
            answer = wire.answer()
            assert answer is not None
            assert answer.status in (401, 403)
            assert wire.closed_within(SILENT_FOR_S)


def test_who_never_stops_sending_is_cut(wire, mock, api_key):
    """A1.7: nobody is listened to for ever."""
    wire.send(declared(api_key, 2**31))
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        for _ in range(1000):
            wire.send(b"a" * 65_536)
    assert mock.requests() == []


PACKED = {
    "gzip": gzip.compress(chat_body()),
    "deflate": zlib.compress(chat_body()),
    "zstd": b"\x28\xb5\x2f\xfd\x04\x00" + chat_body(),
    "br": chat_body(),
    "compress": chat_body(),
    "x-unknown": chat_body(),
    "gzip, identity": gzip.compress(chat_body()),
    "identity, gzip": gzip.compress(chat_body()),
    "identity\r\nContent-Encoding: gzip": gzip.compress(chat_body()),
}


@pytest.mark.parametrize("coding", PACKED, ids=lambda coding: f"A1.8-{coding!r}")
def test_no_content_coding_is_taken(gateway, mock, api_key, coding):
    field = b"Content-Encoding: " + coding.encode()
    assert ask(gateway.url, request(api_key, field, body=PACKED[coding])).status == 415
    assert mock.requests() == []


def test_a_bomb_stays_packed(gateway, mock, api_key, worker):
    """A1.8: 50 KB that would be 50 MB."""
    bomb = gzip.compress(bytes(50_000_000), compresslevel=9)
    before_bytes = worker.memory_info().rss
    for field in (b"Content-Encoding: gzip", b"X-Content-Encoding: gzip"):
        assert ask(gateway.url, request(api_key, field, body=bomb)).status in (400, 415)
    assert psutil.Process(worker.pid).memory_info().rss - before_bytes < 5_000_000
    assert mock.requests() == []


@pytest.mark.parametrize("coding", [b"", b"identity", b"Identity"])
def test_identity_is_no_coding(gateway, api_key, coding):
    """A1.8."""
    assert ask(gateway.url, request(api_key, b"Content-Encoding: " + coding, body=chat_body())).status == 200


@pytest.mark.parametrize(
    "content_type",
    [
        b"application/xml", b"multipart/form-data; boundary=a", b"application/jsonx", b"application/x-ndjson",
        b"application/json, text/html", b"application/problem+json", b"\xff", b"json", b"application/octet-stream",
        b"application/xml\r\nContent-Type: application/json", b"application/json\r\nContent-Type: application/xml",
    ],
    ids=lambda content_type: f"A1.8-{content_type!r}",
)  # fmt: skip
def test_other_media_types_are_refused(gateway, mock, api_key, content_type):
    assert ask(gateway.url, request(api_key, content_type=content_type, body=chat_body())).status == 415
    assert mock.requests() == []


@pytest.mark.parametrize(
    "content_type",
    [
        None, b"", b"application/json", b"APPLICATION/JSON", b"application/json; charset=utf-8", b"text/json",
        b"text/plain", b"application/x-www-form-urlencoded",
    ],
    ids=lambda content_type: f"A1.8-{content_type!r}",
)  # fmt: skip
def test_json_is_served_also_where_it_is_not_named(gateway, api_key, content_type):
    """What curl -d and Ollama's own examples send. The body is parsed as JSON in UTF-8, whatever it is called."""
    assert ask(gateway.url, request(api_key, content_type=content_type, body=chat_body())).status == 200


def test_a_charset_changes_nothing(gateway, mock, api_key):
    """A1.8: the bytes are UTF-8 or they are no JSON."""
    content_type = b"application/json; charset=utf-16"
    assert ask(gateway.url, request(api_key, content_type=content_type, body=chat_body())).status == 200
    utf_16 = chat_body().decode().encode("utf-16")
    assert ask(gateway.url, request(api_key, content_type=content_type, body=utf_16)).status == 400
    assert len(mock.requests()) == 1


def test_a_second_request_on_the_connection_is_a_request_of_its_own(gateway, mock, api_key):
    """A1.12: pipelined requests are answered in order, each with its own key."""
    good, bad = request(api_key, body=chat_body()), request("nz_none", body=chat_body())
    last = request(None, b"Connection: close", start=b"GET / HTTP/1.1")
    assert [answer.status for answer in answers(gateway.url, good + bad + good + last)] == [200, 401, 200, 200]
    with Wire(gateway.url) as wire:
        for byte in good:
            wire.send(bytes((byte,)))
        answer = wire.answer()
        assert answer is not None
        assert answer.status == 200
    assert len(mock.requests()) == 3
