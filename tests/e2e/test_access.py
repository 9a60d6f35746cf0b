"""Every endpoint × {no, bad, good key} × {allowed, forbidden, unknown model}, and what the upstream saw of it."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.canaries import PROMPT
from tests.e2e.harness import bearer, body_of, eventually

ALLOWED, FORBIDDEN, UNKNOWN = "llama3.2", "qwen3:8b", "no-such-model"
MESSAGES = [{"role": "user", "content": PROMPT}]
INFERENCE: dict[str, dict[str, Any]] = {
    "/api/chat": {"messages": MESSAGES, "stream": False},
    "/api/generate": {"prompt": PROMPT, "stream": False},
    "/api/embed": {"input": PROMPT},
    "/api/embeddings": {"prompt": PROMPT},
    "/api/show": {},
    "/v1/chat/completions": {"messages": MESSAGES},
    "/v1/completions": {"prompt": PROMPT},
    "/v1/embeddings": {"input": PROMPT},
}
EMBEDS = {"/api/embed", "/api/embeddings", "/v1/embeddings"}
LISTINGS = ["/api/tags", "/api/version", "/v1/models"]
BLOCKED = [
    ("POST", "/api/pull"), ("POST", "/api/push"), ("POST", "/api/create"), ("POST", "/api/copy"),
    ("DELETE", "/api/delete"), ("POST", "/api/blobs/sha256:00"), ("HEAD", "/api/blobs/sha256:00"), ("GET", "/api/ps"),
    ("POST", "/api/me"), ("POST", "/api/signout"), ("GET", "/api/status"), ("DELETE", "/api/user/keys/x"),
    ("POST", "/api/experimental/web_search"), ("POST", "/api/experimental/web_fetch"),
    ("GET", "/api/experimental/model-recommendations"), ("POST", "/v1/responses"), ("POST", "/v1/messages"),
    ("POST", "/v1/audio/transcriptions"), ("POST", "/API/PULL"), ("POST", "/api//pull"), ("POST", "/api/pull/"),
    ("POST", "/api/%70ull"), ("POST", "/api%2fpull"), ("POST", "//api/pull"), ("POST", "/api/./pull"),
    ("POST", "/api/chat/../pull"), ("POST", "/api/pull;x=1"), ("POST", "/api/%2570ull"),
]  # fmt: skip
UNKNOWN_ROUTES = [
    ("GET", "/nothing"), ("GET", "/api/chat"), ("PUT", "/api/generate"), ("POST", "/api/tags"), ("POST", "/v1/models"),
    ("POST", "/api//chat"), ("POST", "/api/chat/"), ("POST", "/API/chat"), ("POST", "/api/%63hat"),
    ("DELETE", "/v1/models"),
    ("POST", "/v1"), ("GET", "/metrics"), ("GET", "/docs"), ("GET", "/schema"),
]  # fmt: skip
BAD_KEYS = {
    "garbage": "garbage",
    "malformed": "nz_" + "a" * 60,
    "empty": "-",
    "long": "nz_" + "a" * 70_000,
}


@pytest.fixture(scope="module")
def narrow_key(gateway, shared_key):
    name = f"narrow-{uuid.uuid4().hex[:8]}"
    gateway.tenant(name, models=[ALLOWED, "nomic-embed-text"])
    return gateway.key(name)


def raw(http, gateway, method, path, **arguments):
    """Sends the path exactly as it stands."""
    request = http.build_request(method, gateway.url, **arguments)
    request.url = request.url.copy_with(raw_path=path.encode())
    return http.send(request)


def stripped(reply):
    """What a refused client can compare: everything but the date and the request's own id."""
    headers = {name: value for name, value in reply.headers.items() if name not in ("date", "x-request-id")}
    return reply.status_code, headers, reply.content.replace(reply.headers["x-request-id"].encode(), b"ID")


@pytest.mark.parametrize("path", INFERENCE)
def test_a_good_key_and_an_allowed_model_are_served(http, gateway, mock, narrow_key, path):
    model = "nomic-embed-text" if path in EMBEDS else ALLOWED
    reply = http.post(gateway.url + path, json={"model": model, **INFERENCE[path]}, headers=bearer(narrow_key))
    assert reply.status_code == 200, reply.text
    assert reply.headers["x-request-id"]
    assert "granian" not in reply.headers.get("server", "")


@pytest.mark.parametrize("path", INFERENCE)
def test_forbidden_unknown_and_invalid_models_get_the_same_bytes(http, gateway, mock, narrow_key, path):
    replies = [
        stripped(http.post(gateway.url + path, json={"model": model, **INFERENCE[path]}, headers=bearer(narrow_key)))
        for model in (FORBIDDEN, UNKNOWN, "qwen3:cloud", "a/b/c/d", "QWEN3:8B", "registry.ollama.ai/library/qwen3:8b")
    ]
    assert replies[0][0] == 403
    assert all(reply == replies[0] for reply in replies)
    assert mock.requests() == []


@pytest.mark.parametrize("spelling", ["LLAMA3.2", "llama3.2:latest", "library/llama3.2", " llama3.2 "])
def test_every_spelling_of_an_allowed_model_is_served_and_echoed(http, gateway, mock, narrow_key, spelling):
    body = {"model": spelling, "messages": MESSAGES, "stream": False}
    reply = http.post(f"{gateway.url}/api/chat", json=body, headers=bearer(narrow_key))
    assert reply.status_code == 200
    assert reply.json()["model"] == spelling
    assert body_of(mock.requests()[-1])["model"] == "llama3.2:latest"


@pytest.mark.parametrize("path", [*INFERENCE, *LISTINGS, "/v1/models/llama3.2:latest", "/api/pull", "/nothing"])
def test_no_key_and_every_bad_key_are_refused_before_anything_is_read(http, gateway, mock, path):
    method = "POST" if path in INFERENCE or path == "/api/pull" else "GET"
    missing = raw(http, gateway, method, path)
    assert missing.status_code == 401
    replies = [
        stripped(raw(http, gateway, method, path, headers=bearer(key))) for key in BAD_KEYS.values() if len(key) < 100
    ]
    assert all(status in (401, 429) for status, _, _ in replies)
    assert len({body for status, _, body in replies if status == 401}) <= 1
    assert mock.requests() == []


@pytest.mark.parametrize("path", LISTINGS)
def test_listings_show_exactly_what_is_granted(http, gateway, mock, narrow_key, path):
    reply = http.get(gateway.url + path, headers=bearer(narrow_key))
    assert reply.status_code == 200
    if path != "/api/version":
        items = reply.json().get("models") or reply.json().get("data")
        assert {item.get("name") or item.get("id") for item in items} == {"llama3.2:latest", "nomic-embed-text:latest"}


def test_a_model_that_is_not_granted_cannot_be_retrieved(http, gateway, mock, narrow_key):
    allowed = http.get(f"{gateway.url}/v1/models/llama3.2:latest", headers=bearer(narrow_key))
    assert allowed.status_code == 200
    replies = [
        stripped(raw(http, gateway, "GET", f"/v1/models/{name}", headers=bearer(narrow_key)))
        for name in ("qwen3:8b", "nope", "%2e%2e", "a%00b")
    ]
    assert replies[0][0] == 403
    assert all(reply == replies[0] for reply in replies)


@pytest.mark.parametrize(("method", "path"), BLOCKED)
def test_management_routes_are_forbidden_in_any_spelling(http, gateway, mock, narrow_key, method, path):
    reply = raw(http, gateway, method, path, headers=bearer(narrow_key))
    assert reply.status_code == 403
    assert mock.requests() == []


@pytest.mark.parametrize(("method", "path"), UNKNOWN_ROUTES)
def test_unknown_paths_and_wrong_methods_are_one_generic_404(http, gateway, mock, narrow_key, method, path):
    reply = raw(http, gateway, method, path, headers=bearer(narrow_key))
    assert reply.status_code == 404
    assert mock.requests() == []


def test_two_authorization_headers_are_refused(http, gateway, mock, narrow_key):
    headers = [("Authorization", f"Bearer {narrow_key}"), ("Authorization", f"Bearer {narrow_key}")]
    assert http.get(f"{gateway.url}/api/tags", headers=headers).status_code == 401


def test_a_key_anywhere_else_is_no_key(http, gateway, mock, narrow_key):
    url = f"{gateway.url}/api/tags"
    assert http.get(url, params={"api_key": narrow_key}).status_code == 401
    assert http.get(url, headers={"Cookie": f"api_key={narrow_key}"}).status_code == 401
    assert http.get(url, headers={"X-API-Key": narrow_key}).status_code == 401
    assert http.get(url, auth=("user", narrow_key)).status_code == 401


def test_the_upstream_sees_rebuilt_bytes_and_the_fixed_headers(http, gateway, mock, narrow_key):
    body = {
        "model": ALLOWED, "messages": [{"role": "user", "content": PROMPT, "secret_extra": 1}], "keep_alive": -1,
        "options": {"num_ctx": 999_999, "num_gpu": 0, "temperature": 0.5, "num_predict": -2},
        "raw": True, "template": "{{ .System }}", "_debug_render_only": True, "whatever": {"a": [1]}, "stream": False,
    }  # fmt: skip
    headers = {
        **bearer(narrow_key),
        "Cookie": "a=b",
        "X-Forwarded-For": "1.2.3.4",
        "Origin": "http://evil",
        "X-Api-Key": "k",
    }
    reply = http.post(f"{gateway.url}/api/chat", json=body, headers=headers)
    assert reply.status_code == 200, reply.text
    [seen] = mock.requests("/api/chat")
    assert {name.lower() for name, _ in seen["headers"]} == {
        "host", "content-type", "content-length", "accept", "user-agent", "x-request-id",
    }  # fmt: skip
    sent = body_of(seen)
    assert sent.pop("stream", True) is True
    options = sent.pop("options")
    assert options.pop("temperature") == 0.5
    assert options.pop("num_predict") == 4096
    assert options == {}
    assert sent.pop("messages") == [{"role": "user", "content": PROMPT}]
    assert sent == {"model": "llama3.2:latest"}
    ignored = reply.headers["x-gateway-ignored"]
    assert "keep_alive" in ignored
    assert "num_ctx" in ignored
    assert "unknown=" in ignored
    assert "whatever" not in ignored


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"llama3.2","model":"qwen3:8b","messages":[{"role":"user","content":"Hi"}]}',
        b'{"model":"llama3.2","MODEL":"qwen3:8b","messages":[{"role":"user","content":"Hi"}]}',
        b'{"model":"llama3.2","mode\\u006c":"qwen3:8b","messages":[{"role":"user","content":"Hi"}]}',
        b'{"model":"llama3.2","me\xc5\xbf\xc5\xbfages":[],"messages":[{"role":"user","content":"Hi"}]}',
        b'{"model":"llama3.2","messages":[{"role":"user","content":"Hi"}]} {}',
        b'\xef\xbb\xbf{"model":"llama3.2","messages":[{"role":"user","content":"Hi"}]}',
        b'{"model":"llama3.2","messages":[]}',
        b'{"model":"llama3.2","messages":[{"role":"user","content":"Hi"}],"options":{"num_predict":0}}',
        b'{"model":"llama3.2","messages":[{"role":"user","content":"Hi"}],"options":{"num_predict":1e400}}',
        b'{"model":"llama3.2","messages":[{"role":"user","content":"\xff"}]}',
        b"[" * 100_000,
        b"",
        b"null",
    ],
)
def test_what_ollama_would_read_differently_is_refused(http, gateway, mock, narrow_key, body):
    headers = {**bearer(narrow_key), "Content-Type": "application/json"}
    reply = http.post(f"{gateway.url}/api/chat", content=body, headers=headers)
    assert reply.status_code == 400, reply.text
    assert isinstance(reply.json()["error"], str)
    assert mock.requests() == []


def test_the_body_cap_is_exact(http, gateway, mock, narrow_key):
    def post(size: int, *, chunked: bool):
        frame = b'{"model":"llama3.2","stream":false,"messages":[{"role":"user","content":"%s"}]}'
        body = frame % (b"a" * (size - len(frame) + 2))
        assert len(body) == size
        headers = {**bearer(narrow_key), "Content-Type": "application/json"}
        content = iter([body[:1000], body[1000:]]) if chunked else body
        return http.post(f"{gateway.url}/api/chat", content=content, headers=headers).status_code

    assert post(262_144, chunked=False) == 200
    assert post(262_145, chunked=False) == 413
    assert post(262_144, chunked=True) == 200
    assert post(262_145, chunked=True) == 413


@pytest.mark.parametrize("headers", [{"Content-Encoding": "gzip"}, {"Content-Type": "application/xml"}])
def test_other_media_are_refused(http, gateway, mock, narrow_key, headers):
    reply = http.post(f"{gateway.url}/api/chat", content=b"{}", headers={**bearer(narrow_key), **headers})
    assert reply.status_code == 415


def test_every_request_of_a_key_is_audited_once(http, gateway, mock, tenant, key):
    for path, body in INFERENCE.items():
        model = "nomic-embed-text" if path in EMBEDS else ALLOWED
        assert http.post(gateway.url + path, json={"model": model, **body}, headers=bearer(key)).status_code == 200
    for path in LISTINGS:
        assert http.get(gateway.url + path, headers=bearer(key)).status_code == 200
    assert http.post(f"{gateway.url}/api/pull", json={}, headers=bearer(key)).status_code == 403
    query = (
        "SELECT a.endpoint, a.status, a.occurrences, a.total_tokens FROM gateway.audit_log a "
        "JOIN gateway.tenants t ON t.id = a.tenant_id WHERE t.name = $1"
    )

    expected = len(INFERENCE) + len(LISTINGS) + 1

    def found():
        rows = gateway.rows(query, tenant)
        return rows if sum(row["occurrences"] for row in rows) >= expected else None

    rows = eventually(found, timeout_s=20, what="the audit rows")
    assert sum(row["occurrences"] for row in rows) == expected
    assert {row["endpoint"] for row in rows} >= {*INFERENCE, *LISTINGS}
    charged = [row["total_tokens"] for row in rows if row["endpoint"] in INFERENCE and row["endpoint"] != "/api/show"]
    assert all(tokens > 0 for tokens in charged)
