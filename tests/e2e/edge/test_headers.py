"""How many headers there may be, and which of them travel: none from clients, none from backends (A1.13–A1.16)."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.e2e.edge.wire import MESSAGES, MODEL, Answer, Wire, answers, ask, chat_body, request
from tests.e2e.harness import MockOllama, eventually

LISTING = b"GET /api/version HTTP/1.1"
# Host and Authorization stand in every request here.
GIVEN_HEADERS = 2
MAX_HEADERS = 64
MAX_TARGET_BYTES = 8192
HEAD_BUFFER_BYTES = 16_384

UPSTREAM_HEADERS = {"host", "content-type", "content-length", "accept", "user-agent", "x-request-id"}
DOWNSTREAM_HEADERS = {
    "content-type", "content-length", "transfer-encoding", "x-request-id", "cache-control", "server", "date",
    "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests",
    "x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens",
    "x-gateway-num-predict", "x-gateway-ignored", "retry-after", "x-should-retry", "www-authenticate", "connection",
}  # fmt: skip


def with_headers(api_key: str, count: int) -> bytes:
    return request(
        api_key, *(b"X-%d: a" % number for number in range(count - GIVEN_HEADERS)), start=LISTING, content_type=None
    )


@pytest.mark.parametrize(("count", "status"), [(MAX_HEADERS, 200), (MAX_HEADERS + 1, 431), (101, 431), (2000, 431)])
def test_headers_are_counted(gateway, api_key, count, status):
    """A1.13: from 101 on it is hyper that answers."""
    answer = ask(gateway.url, with_headers(api_key, count))
    assert answer.status == status
    assert answer.closes == (status != 200)


@pytest.mark.parametrize(("size", "status"), [(HEAD_BUFFER_BYTES - 1000, 200), (HEAD_BUFFER_BYTES, 431), (10**6, 431)])
@pytest.mark.parametrize("one", [True, False], ids=["one", "many"])
def test_headers_are_measured(gateway, worker, api_key, size, status, one):
    """A1.13: what is too long is not even read to its end."""
    before_bytes = worker.memory_info().rss
    field = b"X-A: " + b"a" * size if one else b"\r\n".join(b"X-%d: %s" % (n, b"a" * (size // 50)) for n in range(50))
    with Wire(gateway.url) as wire:
        answer = wire.offer(request(api_key, field, start=LISTING, content_type=None)).answer()
        # The rest of a megabyte may meet a connection that has ended, and take the answer with it.
        assert answer is None or answer.status == status
        assert answer is not None or size > 10 * HEAD_BUFFER_BYTES
    assert worker.memory_info().rss - before_bytes < 5_000_000


@pytest.mark.parametrize(
    ("length", "status"), [(MAX_TARGET_BYTES, 404), (MAX_TARGET_BYTES + 1, 414), (15_000, 414), (70_000, 431)]
)
def test_targets_are_measured(gateway, api_key, length, status):
    """A1.13: path and query together; beyond the buffer it is hyper that answers."""
    path = b"GET /%s HTTP/1.1" % (b"a" * (length - 1))
    query = b"GET /api/version?%s HTTP/1.1" % (b"a" * (length - len(b"/api/version?")))
    assert ask(gateway.url, request(api_key, start=path, content_type=None)).status == status
    found = ask(gateway.url, request(api_key, start=query, content_type=None)).status
    assert found == (200 if status == 404 else status)


HOSTILE = [
    b"Cookie: session=canary", b"X-Forwarded-For: 6.6.6.6", b"X-Forwarded-Host: canary", b"X-Forwarded-Proto: https",
    b"X-Real-IP: 6.6.6.6", b"Forwarded: for=6.6.6.6;host=canary", b"Via: 1.1 canary",
    b"Connection: X-Canary, keep-alive", b"X-Canary: canary", b"Keep-Alive: timeout=canary",
    b"Proxy-Authorization: Basic canary", b"Proxy-Connection: canary", b"TE: trailers, canary", b"Trailer: canary",
    b"Origin: http://canary", b"Referer: http://canary", b"User-Agent: canary", b"Accept: canary/*",
    b"Accept-Encoding: gzip, canary", b"Accept-Language: canary", b"X-Request-ID: canary", b"traceparent: 00-canary",
    b"tracestate: canary", b"baggage: canary=1", b"Range: bytes=0-canary", b"If-None-Match: canary",
    b"X-HTTP-Method-Override: DELETE", b"X-Original-URL: /api/pull?canary", b"From: canary", b"X-Api-Key: canary",
    b"OpenAI-Organization: canary", b"Cache-Control: canary", b"Priority: canary", b"X-Stainless-Lang: canary",
    b"Content-Language: canary", b"Content-Disposition: canary", b"Upgrade: canary", b"Sec-Fetch-Mode: canary",
    b"X-High: canary\xff\xfe",
]  # fmt: skip


@pytest.mark.parametrize("stream", [True, False], ids=["streaming", "whole"])
@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
def test_no_header_of_a_client_goes_upstream(gateway, backend, mock, api_key, path, stream):
    """A1.14: exactly six, all of our own making."""
    body = json.dumps({"model": MODEL, "stream": stream, "messages": MESSAGES}).encode()
    answer = ask(gateway.url, request(api_key, *HOSTILE, start=f"POST {path} HTTP/1.1".encode(), body=body))
    assert answer.status == 200
    [seen] = mock.requests()
    headers = {name.lower(): value for name, value in seen["headers"]}
    assert len(headers) == len(seen["headers"])
    assert headers.keys() == UPSTREAM_HEADERS
    assert headers["host"] == backend.url.removeprefix("http://")
    assert headers["x-request-id"] == answer.header("x-request-id")
    assert headers["content-type"] == "application/json"
    assert int(headers["content-length"]) == len(base64.b64decode(seen["body_base64"]))
    assert api_key not in str(seen)
    assert "canary" not in str(seen)
    assert (seen["method"], seen["path"]) == ("POST", "/api/chat")


EVIL = {
    "Server": "canary", "Set-Cookie": "canary=1", "Location": "http://canary/", "X-Powered-By": "canary",
    "Access-Control-Allow-Origin": "*", "Access-Control-Allow-Credentials": "true", "X-Request-ID": "canary",
    "Via": "1.1 canary", "Alt-Svc": 'h3=":443"', "Refresh": "0; url=http://canary/", "Link": "<http://canary/>",
    "Strict-Transport-Security": "max-age=1", "Content-Security-Policy": "canary", "Cache-Control": "public",
    "Retry-After": "86400", "X-RateLimit-Limit-Requests": "canary", "Trailer": "X-Canary", "ETag": "canary",
    "WWW-Authenticate": "Basic realm=canary", "Content-Disposition": "attachment; filename=canary",
    "Upgrade": "canary", "Proxy-Authenticate": "canary", "Clear-Site-Data": "*",
}  # fmt: skip
RECORD = {
    "model": MODEL, "created_at": "2026-01-01T00:00:00Z", "message": {"role": "assistant", "content": "Hello"},
    "done": True, "done_reason": "stop", "prompt_eval_count": 3, "eval_count": 1,
}  # fmt: skip


def replied(mock: MockOllama, **reply: Any) -> None:
    """Has every chat answered like this, with the hostile headers."""
    mock.script({"fault": {"kind": "status", "headers": EVIL, **reply}, "match": {"path": "/api/chat"}})


def nothing_leaks(answer: Answer) -> None:
    assert {name for name, _ in answer.headers} <= DOWNSTREAM_HEADERS
    assert answer.header("server") == "neuronetz-gateway"
    shown = str(answer.headers) + answer.body.decode()
    assert "canary" not in shown
    assert "86400" not in shown


@pytest.mark.parametrize("stream", [True, False], ids=["streaming", "whole"])
@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
def test_no_header_of_a_backend_comes_down(gateway, mock, api_key, path, stream):
    """A1.15."""
    replied(mock, status=200, content_type="application/x-ndjson", body=json.dumps(RECORD) + "\n")
    body = json.dumps({"model": MODEL, "stream": stream, "messages": MESSAGES}).encode()
    answer = ask(gateway.url, request(api_key, start=f"POST {path} HTTP/1.1".encode(), body=body))
    assert answer.status == 200
    assert b"Hello" in answer.body
    assert not answer.truncated
    nothing_leaks(answer)


@pytest.mark.parametrize("status", [301, 307, 400, 401, 403, 404, 407, 429, 500, 502, 503])
def test_no_error_of_a_backend_comes_down(gateway, mock, api_key, status):
    """A1.15: neither its headers nor its words; a redirect is followed by nobody."""
    replied(mock, status=status, body='{"error":"canary at 10.0.0.1"}')
    answer = ask(gateway.url, request(api_key, body=chat_body()))
    assert answer.status in (400, 403, 429, 502, 503)
    nothing_leaks(answer)
    assert b"10.0.0.1" not in answer.body
    mock.reset()
    # A 404 takes the model from the backend, until discovery sees it again.
    gateway.wait_for_models(api_key, "llama3.2:latest")


def test_every_reply_bears_our_name_and_its_own_id(gateway, mock, api_key):
    """A1.15: also those that never reached a backend, and whatever id a client asks for."""
    wanted = b"X-Request-ID: 00000000000000000000000000000000"
    starts = (b"POST /api/chat HTTP/1.1", b"POST /api/pull HTTP/1.1", LISTING, b"GET / HTTP/1.1", b"GET /nope HTTP/1.1")
    found = [
        ask(gateway.url, request(key, wanted, start=start, body=chat_body()))
        for start in starts
        for key in (api_key, None)
    ]
    found += answers(gateway.url, request(api_key, wanted, host=None))
    for answer in found:
        nothing_leaks(answer)
    ids = [answer.header("x-request-id") for answer in found]
    assert len(set(ids)) == len(ids)
    assert all(one is not None and len(one) == 32 and one.strip("0") for one in ids)


def test_no_browser_is_let_in_from_elsewhere(gateway, api_key):
    """A1.15: no CORS, neither for a preflight nor for a request."""
    origin = (b"Origin: http://evil.test", b"Access-Control-Request-Method: POST")
    for start in (b"OPTIONS /api/chat HTTP/1.1", LISTING, b"OPTIONS /healthz HTTP/1.1"):
        for key in (api_key, None):
            answer = ask(gateway.url, request(key, *origin, start=start))
            assert not [name for name, _ in answer.headers if name.startswith("access-control")]


def test_proxies_and_passwords_of_the_environment_are_ignored(gateway, backend, mock, api_key, trap):
    """A1.16: the planes run with seven proxy variables, a netrc and a foreign authority; discovery has asked, too."""
    environment = gateway.dataplane_environment()
    assert {"HTTP_PROXY", "http_proxy", "grpc_proxy", "NETRC"} <= environment.keys()
    assert ask(gateway.url, request(api_key, body=chat_body())).status == 200
    [seen] = mock.requests()
    assert {name.lower() for name, _ in seen["headers"]} == UPSTREAM_HEADERS
    mock.forget()
    eventually(lambda: mock.requests("/api/tags"), what="a discovery")
    assert not [name for name, _ in mock.requests("/api/tags")[0]["headers"] if name.lower() == "authorization"]
    with pytest.raises(BlockingIOError):
        connection, address = trap.accept()
        connection.close()
        pytest.fail(f"somebody used the proxy: {address}")
