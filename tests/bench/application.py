"""The data plane's application as the server calls it, without the server: one request, and the application's life."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, MutableMapping
from dataclasses import dataclass
from typing import Any

from dataplane.api.front import Front
from tests.bench.load import Request

_TIMEOUT_S = 10.0


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
    head, _, body = request.to_bytes("http://gateway", api_key).partition(b"\r\n\r\n")
    fields = [line.split(b": ", 1) for line in head.split(b"\r\n")[1:]]
    path = request.path
    scope: dict[str, Any] = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "scheme": "http",
        "method": "POST", "root_path": "", "path": path, "raw_path": path.encode(), "query_string": b"",
        "server": ("127.0.0.1", 8080), "client": ("127.0.0.1", 50_000), "extensions": {}, "state": {},
        "headers": [(name.lower(), value) for name, value in fields],
    }  # fmt: skip
    asked = _Asked(body)
    await application(scope, asked.receive, asked.send)  # type: ignore[arg-type] # ASGI's types are looser
    if asked.status != 200 or not asked.reply.rstrip().endswith((b"}", b"[DONE]")):
        raise RuntimeError(f"{request} was answered {asked.status}: {asked.reply[:200]!r}")


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
