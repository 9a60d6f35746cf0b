"""The first look at a request: what Litestar gets to see of it."""

from typing import Any, cast

import msgspec
import pytest
from litestar.types import Receive, Scope, Send

from dataplane.api.front import Front

OWN = ["/healthz"]


class Recorder:
    """An application that remembers what it was called with."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.kinds: list[str] = []

    async def __call__(self, scope: Any, *rest: Any, **named: Any) -> None:
        del rest, named
        self.kinds.append(scope["type"])
        self.paths.append(scope.get("path", ""))


async def call(app: Recorder, clients: Recorder | None = None, **fields: Any) -> list[dict[str, Any]]:
    scope = {
        "type": "http", "method": "GET", "path": "/healthz", "raw_path": b"/healthz", "query_string": b"",
        "http_version": "1.1", "headers": [(b"host", b"a")], **fields,
    }  # fmt: skip
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    front = Front(app, clients or app, own_paths=OWN, request_id_header=b"x-request-id")
    await front(cast("Scope", scope), cast("Receive", None), send)
    return sent


async def test_a_path_of_litestars_own_reaches_it():
    app, clients = Recorder(), Recorder()
    assert await call(app, clients) == []
    assert (app.paths, clients.paths) == (["/healthz"], [])


@pytest.mark.parametrize(
    "fields",
    [{"raw_path": b"/health%7a"}, {"raw_path": b"/healthz/"}, {"raw_path": b"//healthz"}, {"method": "POST"}],
)
async def test_every_other_spelling_and_method_passes_litestar_by(fields):
    app, clients = Recorder(), Recorder()
    await call(app, clients, **fields)
    assert (app.kinds, clients.kinds) == ([], ["http"])


async def test_what_litestar_answers_has_a_request_id_too():
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    ids = set()
    for _ in range(2):
        start, _ = await call(cast("Recorder", app), Recorder())
        (kept, (name, request_id)) = start["headers"]
        assert (kept, name, len(request_id)) == ((b"a", b"b"), b"x-request-id", 32)
        ids.add(request_id)
    assert len(ids) == 2


async def test_heads_that_are_refused_are_counted_by_status():
    front = Front(Recorder(), Recorder(), own_paths=OWN, request_id_header=b"x-request-id")
    scope = {
        "type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"", "http_version": "1.1",
        "headers": [],
    }  # fmt: skip

    async def send(message: Any) -> None:
        del message

    await front(cast("Scope", scope), cast("Receive", None), send)
    await front(cast("Scope", scope | {"raw_path": b"/" * 9000}), cast("Receive", None), send)

    assert front.refused == {400: 1, 414: 1}


async def test_the_lifespan_passes():
    app = Recorder()
    await Front(app, Recorder(), own_paths=OWN, request_id_header=b"x-request-id")(
        cast("Scope", {"type": "lifespan"}), cast("Receive", None), cast("Send", None)
    )
    assert app.kinds == ["lifespan"]


@pytest.mark.parametrize(
    ("path", "shape"), [(b"/api/chat", str), (b"/v1/chat/completions", dict)], ids=["ollama", "openai"]
)
async def test_a_malformed_head_is_refused_in_its_dialect_and_nothing_is_called(path, shape):
    app = Recorder()
    start, body = await call(app, method="POST", raw_path=path, headers=[])
    headers = dict(start["headers"])
    assert (start["status"], headers[b"connection"]) == (400, b"close")
    assert len(headers[b"x-request-id"]) == 32
    assert isinstance(msgspec.json.decode(body["body"])["error"], shape)
    assert app.kinds == []


async def test_a_refusal_of_head_has_no_body():
    start, body = await call(Recorder(), method="HEAD", headers=[])
    assert dict(start["headers"])[b"content-length"] != b"0"
    assert body["body"] == b""
