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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del receive, send
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
