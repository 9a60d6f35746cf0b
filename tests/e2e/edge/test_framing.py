"""Where a request begins and ends: hosts, lengths, codings, chunks (A1.4, A1.5, A1.6, A1.12).

Every refused request is followed by a good one in the same bytes: it must not be answered, because where it begins is
a matter of opinion.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.edge.wire import Wire, answers, ask, chat_body, chunked, request

BODY = chat_body()
CODING = b"Transfer-Encoding: "
LENGTH = b"Content-Length: "
CHUNKED = chunked(BODY)
LIVENESS = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def refused_alone(gateway, mock, data: bytes, *, status: int = 400) -> None:
    """One reply, then the end of the connection; nothing went upstream."""
    [answer] = answers(gateway.url, data + LIVENESS)
    assert answer.status == status
    assert answer.closes
    assert answer.header("server") in (None, "neuronetz-gateway")
    assert mock.requests() == []


@pytest.mark.parametrize(
    "host",
    [
        None, b"", b"a b", b"a/b", b"a?b", b"a#b", b"a\\b", b"user@a", b"a,b", b"a:99999", b"a:b", b"a%2fb", b"\xff",
        b"a\xc3\xa4", b"[::1", b"a" * 300, b"http://a", b"a\r\nHost: b",
    ],
    ids=lambda host: f"A1.4-{host!r:.24}",
)  # fmt: skip
def test_a_host_that_is_missing_doubled_or_none_is_refused(gateway, mock, api_key, host):
    refused_alone(gateway, mock, request(api_key, body=BODY, host=host))


@pytest.mark.parametrize("host", [b"gateway.test", b"gateway.test:8080", b"127.0.0.1", b"[::1]:80", b"a_b.internal"])
def test_an_honest_host_is_served(gateway, api_key, host):
    """A1.4."""
    assert ask(gateway.url, request(api_key, body=BODY, host=host)).status == 200


def test_http_1_0_needs_no_host_and_closes(gateway, api_key):
    """A1.4: health checks of old load balancers."""
    [answer] = answers(gateway.url, request(api_key, body=BODY, host=None, start=b"POST /api/chat HTTP/1.0"))
    assert answer.status == 200


REFUSED = {
    "coding-gzip-chunked": ((CODING + b"gzip, chunked",), CHUNKED),
    "coding-gzip": ((CODING + b"gzip",), CHUNKED),
    "coding-identity": ((CODING + b"identity", LENGTH + b"%d" % len(BODY)), BODY),
    "coding-chunked-gzip": ((CODING + b"chunked, gzip",), CHUNKED),
    "coding-chunked-chunked": ((CODING + b"chunked, chunked",), CHUNKED),
    "coding-twice": ((CODING + b"chunked", CODING + b"chunked"), CHUNKED),
    "coding-gzip-and-chunked": ((CODING + b"gzip", CODING + b"chunked"), CHUNKED),
    "coding-chunked-and-gzip": ((CODING + b"chunked", CODING + b"gzip"), CHUNKED),
    "coding-xchunked": ((CODING + b"xchunked",), CHUNKED),
    "coding-parameter": ((CODING + b"chunked;q=1",), CHUNKED),
    "coding-quoted": ((CODING + b'"chunked"',), CHUNKED),
    "coding-vertical-tab": ((CODING + b"\x0bchunked",), CHUNKED),
    "coding-empty": ((CODING, LENGTH + b"%d" % len(BODY)), BODY),
    "coding-space-before-colon": ((b"Transfer-Encoding : chunked",), CHUNKED),
    "length-twice": ((LENGTH + b"3", LENGTH + b"%d" % len(BODY)), BODY),
    "length-list": ((LENGTH + b"%d, %d" % (len(BODY), len(BODY)),), BODY),
    "length-plus": ((LENGTH + b"+%d" % len(BODY),), BODY),
    "length-minus": ((LENGTH + b"-1",), BODY),
    "length-hex": ((LENGTH + b"0x10",), BODY),
    "length-empty": ((LENGTH,), BODY),
    "length-two-words": ((LENGTH + b"1 2",), BODY),
    "length-overflow": ((LENGTH + b"18446744073709551616",), BODY),
    "obs-fold": ((b"X-A: b\r\n c", LENGTH + b"%d" % len(BODY)), BODY),
    "value-nul": ((b"X-A: a\0b", LENGTH + b"%d" % len(BODY)), BODY),
    "value-cr": ((b"X-A: a\rb", LENGTH + b"%d" % len(BODY)), BODY),
    "value-control": ((b"X-A: a\x01b", LENGTH + b"%d" % len(BODY)), BODY),
    "name-empty": ((b": a", LENGTH + b"%d" % len(BODY)), BODY),
    "name-bracket": ((b"X(A: a", LENGTH + b"%d" % len(BODY)), BODY),
    "no-colon": ((b"X-A", LENGTH + b"%d" % len(BODY)), BODY),
}


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: f"A1.5-{case}")
def test_framing_that_can_be_read_in_two_ways_is_refused(gateway, mock, api_key, case):
    fields, body = REFUSED[case]
    refused_alone(gateway, mock, request(api_key, *fields) + body)


@pytest.mark.parametrize(
    "start",
    [
        b"POST /api/chat HTTP/2.0", b"POST /api/chat HTTP/1.2", b"POST /api/chat http/1.1", b"POST  /api/chat HTTP/1.1",
        b"POST /api/chat  HTTP/1.1", b"POST\t/api/chat\tHTTP/1.1", b"POST /api/chat", b"POST /api/ch at HTTP/1.1",
        b"P\0ST /api/chat HTTP/1.1", b"POST /api/chat\0 HTTP/1.1", b" POST /api/chat HTTP/1.1",
    ],
    ids=lambda start: f"A1.5-{start!r}",
)  # fmt: skip
def test_a_request_line_that_is_none_is_refused(gateway, mock, api_key, start):
    refused_alone(gateway, mock, request(api_key, body=BODY, start=start))


@pytest.mark.parametrize("noise", [bytes(100), b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03" + bytes(200)], ids=repr)
def test_what_is_no_http_is_refused(gateway, mock, noise):
    """A1.5: binary noise, a TLS handshake."""
    refused_alone(gateway, mock, noise)


def test_a_transfer_coding_needs_http_1_1(gateway, mock, api_key):
    """A1.5."""
    start = b"POST /api/chat HTTP/1.0"
    refused_alone(gateway, mock, request(api_key, CODING + b"chunked", start=start) + CHUNKED)


@pytest.mark.parametrize("order", ["length-first", "coding-first"])
def test_length_and_coding_together_are_one_request_and_the_last(gateway, mock, api_key, order):
    """A1.5: hyper hides the length from us, reads by the coding, as RFC 9112 section 6.3 allows, and must close."""
    fields = [LENGTH + b"4", CODING + b"chunked"]
    if order == "coding-first":
        fields.reverse()
    smuggled = request(api_key, body=BODY)
    [answer] = answers(gateway.url, request(api_key, *fields) + CHUNKED + smuggled)
    assert answer.status == 200
    assert answer.closes
    assert len(mock.requests()) == 1


def test_bare_line_feeds_end_lines_and_nothing_else(gateway, mock, api_key):
    """A1.5: hyper takes them, as RFC 9112 section 2.2 allows; nothing of them travels further."""
    with Wire(gateway.url) as wire:
        answer = wire.send(request(api_key, b"X-A: a\nX-B: b", body=BODY)).answer()
        assert answer is not None
        assert answer.status == 200
    [seen] = mock.requests()
    assert not {"x-a", "x-b"} & {name.lower() for name, _ in seen["headers"]}


BROKEN_CHUNKS = {
    "no-number": b"zz\r\n%s\r\n0\r\n\r\n" % BODY,
    "negative": b"-5\r\n%s\r\n0\r\n\r\n" % BODY,
    "prefixed": b"0x%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY),
    "too-many-digits": b"1ffffffffffffffff\r\n%s" % BODY,
    "no-line-end-behind": b"%x\r\n%sXX0\r\n\r\n" % (len(BODY), BODY),
    "bare-line-feeds": b"%x\n%s\n0\n\n" % (len(BODY), BODY),
    "leading-space": b" %x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY),
    "empty-size": b"\r\n%s\r\n0\r\n\r\n" % BODY,
    "one-too-short": b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY) - 1, BODY),
    "long-extension": b"%x;%s\r\n%s\r\n0\r\n\r\n" % (len(BODY), b"a" * 20_000, BODY),
    "broken-trailer": b"%x\r\n%s\r\n0\r\nno colon\r\n\r\n" % (len(BODY), BODY),
    "many-trailers": b"%x\r\n%s\r\n0\r\n%s\r\n" % (len(BODY), BODY, b"X: a\r\n" * 20_000),
    "long-trailer": b"%x\r\n%s\r\n0\r\nX: %s\r\n\r\n" % (len(BODY), BODY, b"a" * 200_000),
}


@pytest.mark.parametrize("case", BROKEN_CHUNKS, ids=lambda case: f"A1.6-{case}")
def test_broken_chunks_are_the_clients_fault(gateway, mock, api_key, case):
    refused_alone(gateway, mock, request(api_key, CODING + b"chunked") + BROKEN_CHUNKS[case])


@pytest.mark.parametrize("framing", [LENGTH + b"%d" % (len(BODY) + 1), CODING + b"chunked"])
def test_a_body_that_breaks_off_is_the_clients_fault(gateway, mock, api_key, framing):
    """A1.6: truncated, then FIN. Whether the client still reads the 400 is its own affair."""
    with Wire(gateway.url) as wire:
        wire.send(request(api_key, framing) + BODY[:-1]).half_close()
        answer = wire.answer()
        assert answer is None or answer.status == 400
        assert wire.rest() == b""
    assert mock.requests() == []


def test_chunks_of_any_size_are_one_body(gateway, mock, api_key):
    """A1.6: extensions are read over."""
    pieces = [BODY[at : at + 1] for at in range(len(BODY))]
    extended = b'%x;a=b;c="d"\r\n%s\r\n0\r\n\r\n' % (len(BODY), BODY)
    for body in (chunked(*pieces), extended):
        assert ask(gateway.url, request(api_key, CODING + b"chunked") + body).status == 200
    first, second = (request["body_base64"] for request in mock.requests())
    assert first == second


def test_trailers_change_nothing(gateway, mock, api_key):
    """A1.6: neither who asks, nor how long the body is, nor what goes upstream."""
    trailers = (
        b"Authorization: Bearer nz_x\r\nContent-Length: 5\r\nHost: x\r\nX-Request-ID: x\r\nTransfer-Encoding: gzip"
    )
    body = b"%x\r\n%s\r\n0\r\n%s\r\n\r\n" % (len(BODY), BODY, trailers)
    assert ask(gateway.url, request(api_key, CODING + b"chunked", b"Trailer: Authorization") + body).status == 200
    assert ask(gateway.url, request(None, CODING + b"chunked") + body.replace(b"nz_x", api_key.encode())).status == 401
    [seen] = mock.requests()
    assert "x" not in dict(seen["headers"]).values()


REJECTED_EARLY: dict[str, tuple[int, dict[str, Any]]] = {
    "unauthenticated": (401, {"api_key": "nz_none"}),
    "unknown-route": (404, {"start": b"POST /nope HTTP/1.1"}),
    "management-route": (403, {"start": b"POST /api/pull HTTP/1.1"}),
    "media-type": (415, {"content_type": b"application/xml"}),
    "json": (400, {}),
    "listing-with-a-body": (200, {"start": b"GET /api/version HTTP/1.1"}),
}


@pytest.mark.parametrize("copies", [1, 200], ids=["short", "long"])
@pytest.mark.parametrize("case", REJECTED_EARLY, ids=lambda case: f"A1.12-{case}")
def test_an_unread_body_is_never_taken_for_requests(gateway, mock, api_key, case, copies):
    status, change = REJECTED_EARLY[case]
    inside = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n" * copies
    arguments = {"api_key": api_key, "body": b"{" + inside if case == "json" else inside, **change}
    first, *others = answers(gateway.url, request(**arguments) + LIVENESS)
    assert first.status == status
    # What follows the body may be answered, or the connection has ended; what is inside it never is.
    assert [answer.body for answer in others] in ([], [b"neuronetz-gateway is running"])
    assert mock.requests() == []


def test_a_body_over_the_cap_is_never_taken_for_requests(gateway, mock, api_key):
    """A1.12: refused by its declared length, with every byte of it on the way."""
    inside = LIVENESS * 10_000
    refused_alone(gateway, mock, request(api_key, body=inside), status=413)


def test_a_half_sent_body_is_never_taken_for_requests(gateway, mock, api_key):
    """A1.12: the refusal leaves while the body is still missing bytes."""
    [answer] = answers(gateway.url, request("nz_none", LENGTH + b"%d" % (len(LIVENESS) + 1)) + LIVENESS)
    assert answer.status == 401
    assert mock.requests() == []
