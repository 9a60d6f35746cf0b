"""An Ollama that costs next to nothing: ``python -m tests.bench.fast_ollama [--models N]``.

It reads as much of a request as it takes to choose one of the written replies (``fast_replies``): the model and whether
a stream is wanted. Whoever measures a proxy in front of it measures the proxy. One process, one loop; it says where it
listens in a line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping
from typing import cast

import uvloop

from tests.bench import fast_replies
from tests.bench.fast_replies import Script

_BACKLOG = 8192
_LENGTH = b"content-length:"
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


class Replies:
    """Which bytes answer which request."""

    def __init__(self, extra_models: int) -> None:
        self._scripts: Mapping[tuple[str, str, bool], Script] = fast_replies.scripts()
        self._fixed = {
            b"GET /api/tags ": fast_replies.tags(extra_models),
            b"POST /api/show ": fast_replies.show(),
            b"GET /api/version ": fast_replies.version(),
        }
        self._by_request: dict[tuple[bytes, bytes, bool], Script] = {}
        for (path, model, is_streamed), script in self._scripts.items():
            self._by_request[b"POST %b " % path.encode(), model.encode(), is_streamed] = script
        self._models = tuple(model.encode() for model in fast_replies.MODELS)

    def to(self, head: bytes, body: bytes) -> Script:
        """The reply to a request. Ollama streams where nothing is said, OpenAI does not."""
        start = head[: head.find(b" ", 5) + 1]
        fixed = self._fixed.get(start)
        if fixed is not None:
            return Script(first=fixed)
        model = next((model for model in self._models if model in body), b"")
        said = body.find(b'"stream"')
        is_streamed = b"/api/" in start if said < 0 else b"true" in body[said : said + 16]
        return self._by_request.get((start, model, is_streamed), Script(first=_NOT_FOUND))

    def __repr__(self) -> str:
        return f"Replies({len(self._scripts)} scripts)"


class Connection(asyncio.Protocol):
    """One connection with one request at a time."""

    def __init__(self, replies: Replies) -> None:
        self._replies = replies
        self._loop = asyncio.get_running_loop()
        self._unread = b""
        self._transport: asyncio.Transport | None = None
        self._handle: asyncio.Handle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See ``asyncio.BaseProtocol``."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """See ``asyncio.BaseProtocol``."""
        del exc
        self._transport = None
        if self._handle is not None:
            self._handle.cancel()

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        self._unread = data = self._unread + data if self._unread else data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return
        body_at = end + 4
        length_at = data[:end].lower().find(_LENGTH)
        length = 0
        if length_at >= 0:
            after = length_at + len(_LENGTH)
            line_end = data.find(b"\r\n", after)
            length = int(data[after:line_end])
        if len(data) - body_at < length:
            return
        self._unread = b""
        self._answer(self._replies.to(data[:end], data[body_at:]))

    def _answer(self, script: Script) -> None:
        self._write(script.first)
        if script.further:
            self._later(script, 0, self._loop.time())

    def _later(self, script: Script, position: int, last_s: float) -> None:
        # Without a pause it is the next turn of the loop, which has written by then: a system call for each record.
        due_s = last_s + script.pace_s
        if script.pace_s:
            self._handle = self._loop.call_at(due_s, self._go_on, script, position, due_s)
        else:
            self._handle = self._loop.call_soon(self._go_on, script, position, due_s)

    def _go_on(self, script: Script, position: int, due_s: float) -> None:
        self._write(script.further[position])
        if position + 1 < len(script.further):
            self._later(script, position + 1, due_s)
        else:
            self._handle = None

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


async def serve(port: int, extra_models: int) -> None:
    """Listens until it is cancelled; says where on stdout."""
    replies = Replies(extra_models)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(replies), "127.0.0.1", port, backlog=_BACKLOG)
    address = server.sockets[0].getsockname()
    sys.stdout.write(json.dumps({"url": f"http://{address[0]}:{address[1]}"}) + "\n")
    sys.stdout.flush()
    await server.serve_forever()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.fast_ollama", description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--models", type=int, default=0, help="models that are listed besides its own")
    options = parser.parse_args()
    uvloop.run(serve(options.port, options.models))


if __name__ == "__main__":
    main()
