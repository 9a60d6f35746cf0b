"""The data plane's application as the server calls it, without the server: one request, and the application's life."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
import time
from collections.abc import AsyncIterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from dataplane import app
from dataplane.api.front import Front
from shared import modelname
from shared.records import (
    BackendModelsRecord,
    BackendRecord,
    ConfigRecord,
    DiscoveredRecord,
    GrantsRecord,
    LimitsRecord,
    ModelRecord,
)
from tests.bench import fast_replies
from tests.bench.cases import CASES, REPLY_NATIVE
from tests.bench.load import Request
from tests.fakes.published_state import PEPPER, PublishedState

_TIMEOUT_S = 10.0
_MANY = 10**12
_LIMITS = LimitsRecord(
    rpm=1_000_000, tpm=10**9, concurrent=1000, budget_day=_MANY, budget_month=_MANY, budget_total=_MANY
)


@dataclass(slots=True)
class _Asked:
    """One request as the server hands it to the application, and the reply."""

    body: bytes
    status: int = 0
    reply: bytes = b""
    has_body: bool = True

    async def receive(self) -> dict[str, Any]:
        """The whole body at once; then nothing, as of a client that waits."""
        if self.has_body:
            self.has_body = False
            return {"type": "http.request", "body": self.body, "more_body": False}
        return await asyncio.get_running_loop().create_future()  # never comes

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """Takes the reply."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.reply += message.get("body", b"")


async def ask(application: Front, request: Request, api_key: str) -> None:
    """One request. Raises RuntimeError unless it is answered whole."""
    scope, body = _message(request, api_key)
    asked = _Asked(body)
    await application({**scope}, asked.receive, asked.send)  # type: ignore[arg-type] # ASGI's types are looser
    if asked.status != 200 or not asked.reply.rstrip().endswith((b"}", b"[DONE]")):
        raise RuntimeError(f"{request} was answered {asked.status}: {asked.reply[:200]!r}")


# A client has its message before it sends it: that is no work of the gateway's.
@functools.cache
def _message(request: Request, api_key: str) -> tuple[Mapping[str, Any], bytes]:
    """The scope of a request, and its body."""
    head, _, body = request.to_bytes("http://gateway", api_key).partition(b"\r\n\r\n")
    fields = [line.split(b": ", 1) for line in head.split(b"\r\n")[1:]]
    path = request.path
    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "scheme": "http",
        "method": "POST", "root_path": "", "path": path, "raw_path": path.encode(), "query_string": b"",
        "server": ("127.0.0.1", 8080), "client": ("127.0.0.1", 50_000), "extensions": {}, "state": {},
        "headers": [(name.lower(), value) for name, value in fields],
    }  # fmt: skip
    return scope, body


@contextlib.asynccontextmanager
async def serving(redis_url: str, state: PublishedState, upstream_url: str) -> AsyncIterator[tuple[Front, str]]:
    """A worker's application in this process, with every control on, in front of one backend; and a key for it."""
    api_key = _published(state, upstream_url)
    # Nobody connects, but a worker looks for the socket on which it is served until it finds it.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        os.environ |= {
            "REDIS_URL": redis_url, "GATEWAY_KEY_PEPPER": PEPPER, "REDIS_TIMEOUT_S": "5",
            "GATEWAY_SEALING_KEY": "A" * 43 + "=", "GATEWAY_BIND_PORT": str(listener.getsockname()[1]),
            "GATEWAY_LOG_LEVEL": "warning", "GATEWAY_TRUSTED_PROXIES": "", "GATEWAY_DRAIN_TIMEOUT_S": "1",
        }  # fmt: skip
        application = app.create()
        async with running(application):
            await ready(application, next(case.request for case in CASES if case.name == REPLY_NATIVE), api_key)
            yield application, api_key


def _published(state: PublishedState, upstream_url: str) -> str:
    """Publishes what the control plane would have; gives a key that may do everything within limits."""
    state.stamp()
    models = tuple(
        ModelRecord(name=f"{name}:latest", canonical=modelname.canonical(name), context_length=131_072)
        for name in fast_replies.MODELS
    )
    now_ms = int(time.time() * 1000)
    state.models(
        ConfigRecord(revision=1, backends=(BackendRecord(name="fast", url=upstream_url),)),
        DiscoveredRecord(
            revision=1,
            expires_at_ms=now_ms + 600_000,
            backends=(BackendModelsRecord(backend="fast", seen_at_ms=now_ms, models=models),),
        ),
        ttl_ms=600_000,
    )
    everything = GrantsRecord(allow_all_models=True)
    return state.key(tenant={"limits": _LIMITS, "grants": everything}, limits=_LIMITS)


@contextlib.asynccontextmanager
async def running(application: Front) -> AsyncIterator[None]:
    """The application's lifespan, as the server would run it."""
    messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    started = asyncio.Event()

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "lifespan.startup.complete":
            started.set()

    scope: dict[str, Any] = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    async with asyncio.TaskGroup() as group:
        life = group.create_task(application(scope, messages.get, send))  # type: ignore[arg-type] # see above
        await messages.put({"type": "lifespan.startup"})
        async with asyncio.timeout(_TIMEOUT_S):
            await started.wait()
        yield
        await messages.put({"type": "lifespan.shutdown"})
        async with asyncio.timeout(_TIMEOUT_S):
            await life


async def ready(application: Front, request: Request, api_key: str) -> None:
    """Waits until requests are served."""
    deadline_s = time.monotonic() + _TIMEOUT_S
    while True:
        try:
            await ask(application, request, api_key)
        except RuntimeError:
            if time.monotonic() > deadline_s:
                raise
            await asyncio.sleep(0.05)
        else:
            return
