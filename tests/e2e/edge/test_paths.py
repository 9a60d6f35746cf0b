"""Which method on which path is answered, to whom, and that another spelling opens nothing (A1.1–A1.3, A1.11)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.edge.wire import Answer, Wire, answers, ask, chat_body, request
from tests.e2e.test_access import EMBEDS, INFERENCE

OPEN = {("GET", "/"), ("HEAD", "/"), ("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/playground")}
LISTINGS = ["/api/tags", "/api/version", "/v1/models", "/v1/models/llama3.2:latest"]
SERVED = {("POST", path) for path in INFERENCE} | {(method, path) for path in LISTINGS for method in ("GET", "HEAD")}
MUTATING = [
    "/api/pull", "/api/push", "/api/create", "/api/copy", "/api/delete", "/api/blobs/sha256:00", "/api/me",
    "/api/signout", "/api/user/keys/x", "/api/experimental/web_fetch", "/v1/responses", "/v1/messages",
    "/v1/audio/transcriptions",
]  # fmt: skip
OTHERS = [
    "/api/ps",
    "/nothing",
    "/metrics",
    "/docs",
    "/schema/openapi.json",
    "/api",
    "/v1",
    "/favicon.ico",
    "/debug/pprof",
]
PATHS = ["/", "/healthz", "/readyz", "/playground", *INFERENCE, *LISTINGS, *MUTATING, *OTHERS]
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW", "get"]
KEYS = ["none", "bad", "good"]


def body_for(path: str) -> bytes:
    model = "nomic-embed-text" if path in EMBEDS else "llama3.2"
    fields: dict[str, Any] = INFERENCE.get(path, {})
    return json.dumps({"model": model, **fields}).encode()


def stripped(answer: Answer) -> tuple[int, tuple[tuple[str, str], ...], bytes]:
    """What a refused client can compare: everything but the date and the request's own id."""
    headers = tuple(pair for pair in answer.headers if pair[0] not in ("date", "x-request-id"))
    return answer.status, headers, answer.body


@pytest.mark.parametrize("who", KEYS)
def test_only_documented_pairs_of_method_and_path_are_answered(gateway, mock, api_key, who):
    """A1.1: ten methods on every path, over one connection. Refusals of one kind are the same bytes."""
    key = {"none": None, "bad": "nz_" + "a" * 60, "good": api_key}[who]
    refusals: dict[tuple[int, bool, bool], set[Any]] = {}
    with Wire(gateway.url) as wire:
        for path in PATHS:
            for method in METHODS:
                start = f"{method} {path} HTTP/1.1".encode()
                answer = wire.send(request(key, start=start, body=body_for(path))).answer(to_head=method == "HEAD")
                assert answer is not None
                if (method, path) in OPEN or (who == "good" and (method, path) in SERVED):
                    assert answer.status == 200, (method, path)
                else:
                    assert answer.status in ((403, 404) if who == "good" else (401,)), (method, path)
                    kind = answer.status, path.startswith("/v1/"), method == "HEAD"
                    refusals.setdefault(kind, set()).add(stripped(answer))
    assert {kind: len(different) for kind, different in refusals.items() if len(different) > 1} == {}
    assert len(mock.requests()) == (len(INFERENCE) - 1 if who == "good" else 0), "all of them but /api/show"


SPELLINGS = {
    "exact": "{path}",
    "encoded-letter": "/%61pi{rest}",
    "encoded-twice": "/%2561pi{rest}",
    "encoded-slash": "/{first}%2f{tail}",
    "encoded-slash-twice": "/{first}%252F{tail}",
    "doubled-slash": "/{first}//{tail}",
    "leading-slashes": "//{first}/{tail}",
    "dot": "/{first}/./{tail}",
    "encoded-dot": "/{first}/%2e/{tail}",
    "dot-dot": "/x/..{path}",
    "encoded-dot-dot": "/x/%2e%2e{path}",
    "below-a-good-path": "/api/chat/../..{path}",
    "below-a-model": "/v1/models/..%2f..{path}",
    "backslash": "/{first}\\{tail}",
    "upper-case": "{upper}",
    "trailing-slash": "{path}/",
    "trailing-encoded-slash": "{path}%2f",
    "trailing-space": "{path}%20",
    "trailing-nul": "{path}%00",
    "parameter": "{path};v=1",
    "parameter-within": "/{first};v=1/{tail}",
    "query": "{path}?x=/api/chat",
    "fragment": "{path}#/api/chat",
    "absolute": "http://gateway.test{path}",
    "absolute-elsewhere": "http://127.0.0.1:11434{path}",
    "absolute-with-user": "http://u:p@h{path}",
}


def spelled(form: str, path: str) -> str:
    _, first, tail = path.split("/", 2)
    rest = path.replace("/api", "", 1) if first == "api" else f"/..{path}"
    return form.format(path=path, rest=rest, first=first, tail=tail, upper=path.upper())


@pytest.mark.parametrize("form", SPELLINGS, ids=lambda form: f"A1.2-{form}")
def test_what_changes_ollama_is_forbidden_in_every_spelling(gateway, mock, api_key, form):
    with Wire(gateway.url) as wire:
        for path in MUTATING:
            for method in ("POST", "DELETE", "HEAD"):
                start = f"{method} {spelled(SPELLINGS[form], path)} HTTP/1.1".encode()
                answer = wire.send(request(api_key, start=start, body=b"{}")).answer(to_head=method == "HEAD")
                assert answer is not None
                assert answer.status == 403, start
    assert mock.requests() == []


@pytest.mark.parametrize(
    "target",
    ["api/pull", "/api/pu ll", '/api/"pull', "/api/pull\x7f", "/api/pull\xff", "http:///api/pull", "http://", "?x", ""],
    ids=repr,
)
def test_what_is_no_target_is_refused(gateway, mock, api_key, target):
    """A1.2."""
    start = f"POST {target} HTTP/1.1".encode("latin-1")
    [answer] = answers(gateway.url, request(api_key, b"Connection: close", start=start, body=b"{}"))
    assert answer.status in (400, 404)
    assert mock.requests() == []


@pytest.mark.parametrize(
    "header", [b"X-Original-URL: /api/chat", b"X-Rewrite-URL: /api/chat", b"X-HTTP-Method-Override: GET"]
)
def test_no_header_changes_what_is_asked_for(gateway, mock, api_key, header):
    """A1.2."""
    assert ask(gateway.url, request(api_key, header, start=b"POST /api/pull HTTP/1.1", body=b"{}")).status == 403
    assert ask(gateway.url, request(api_key, header, start=b"POST /nope HTTP/1.1", body=chat_body())).status == 404
    assert mock.requests() == []


@pytest.mark.parametrize("form", [form for form in SPELLINGS if form not in ("exact", "query", "fragment")])
@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/healthz/x", "/readyz/x"])
def test_a_path_is_its_bytes(gateway, mock, api_key, form, path):
    """A1.3: what looks like a served path is not that path. An absolute target is its path, as HTTP/1.1 has it."""
    start = f"POST {spelled(SPELLINGS[form], path)} HTTP/1.1".encode()
    answer = ask(gateway.url, request(api_key, start=start, body=chat_body()))
    served = form.startswith("absolute") and not path.endswith("/x")
    assert answer.status == (200 if served else 404)
    assert len(mock.requests()) == served


@pytest.mark.parametrize(
    "target", ["/healthz/", "//healthz", "/health%7a", "/HEALTHZ", "/healthz;x", "/./healthz", "/x/../healthz"]
)
def test_health_and_playground_are_their_bytes_too(gateway, target):
    """A1.3: Litestar's own router would answer most of these."""
    for path in (target, target.replace("healthz", "playground").replace("health%7a", "playgroun%64")):
        assert ask(gateway.url, request(None, start=f"GET {path} HTTP/1.1".encode())).status == 401


def test_the_query_decides_nothing(gateway, mock, api_key):
    """A1.3."""
    answer = ask(
        gateway.url,
        request(api_key, start=b"POST /api/chat?model=qwen3:8b&api_key=x&stream=true HTTP/1.1", body=chat_body()),
    )
    assert answer.status == 200
    assert answer.json["model"] == "llama3.2"
    [seen] = mock.requests()
    assert seen["path"] == "/api/chat"


WEBSOCKET = (b"Upgrade: websocket", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", b"Sec-WebSocket-Version: 13")
UPGRADES = {
    "h2c": (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__"),
    "websocket": (b"Connection: Upgrade", *WEBSOCKET),
    "websocket-protocols": (b"Connection: Upgrade", *WEBSOCKET, b"Sec-WebSocket-Protocol: \xff\xfe, a"),
    "tls": (b"Connection: Upgrade", b"Upgrade: TLS/1.0"),
}


@pytest.mark.parametrize("case", UPGRADES, ids=lambda case: f"A1.11-{case}")
def test_nobody_is_upgraded(gateway, mock, api_key, case):
    """An Upgrade is ignored, as a server may: Java's client offers h2c with every first request in plain text."""
    start = b"GET /api/version HTTP/1.1"
    assert ask(gateway.url, request(api_key, *UPGRADES[case], start=start)).status == 200
    assert ask(gateway.url, request(None, *UPGRADES[case], start=start)).status == 401
    with Wire(gateway.url) as wire:
        answer = wire.send(request(api_key, *UPGRADES[case], body=chat_body())).answer()
        assert answer is not None
        assert answer.status == 200
        # The connection speaks what it spoke before.
        again = wire.send(request(api_key, b"Connection: close", start=start)).answer()
        assert again is not None
        assert again.status == 200
    assert len(mock.requests()) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
        b"PRI * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"CONNECT 127.0.0.1:11434 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"CONNECT /api/chat HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"TRACE / HTTP/1.1\r\nHost: a\r\nX-Canary: canary\r\nConnection: close\r\n\r\n",
    ],
    ids=lambda data: f"A1.11-{data[:22]!r}",
)
def test_what_is_no_plain_request_gets_a_refusal_or_the_door(gateway, mock, data):
    for answer in answers(gateway.url, data):
        assert 400 <= answer.status < 500
        assert b"canary" not in answer.body
    assert mock.requests() == []
