"""What granian calls: the first look at a request, and who answers it.

Litestar's router is generous: it decodes, drops doubled and trailing slashes, and answers a wrong method in words of
its own. Here a path is its bytes. So a path of Litestar's own (health, playground) is passed on only where it stands
exactly so; everything else is for ``server.Server``, which judges it by its raw path. A mount in Litestar would say the
same and cost a tenth of a request: its router, two middlewares and a wrapped ``send``.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from typing import Protocol

from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from dataplane.api import heads, problems, routes
from dataplane.api.exchange import SERVER
from dataplane.api.heads import Fields
from dataplane.api.lingering import drop_body
from dataplane.errors import RequestError


class Clients(Protocol):
    """What answers clients."""

    async def __call__(self, scope: HTTPScope, fields: Fields, receive: Receive, send: Send) -> None:
        """Answers one request. ``fields`` is what was read of its head."""
        ...


class Front:
    """The outermost ASGI application.

    ``app`` is Litestar's, with the lifespan; it answers its ``own_paths``, to GET alone, and ``clients`` all others.
    """

    def __init__(self, app: ASGIApp, clients: Clients, *, own_paths: Iterable[str], request_id_header: bytes) -> None:
        self._app = app
        self._clients = clients
        self._own_paths = frozenset(path.encode() for path in own_paths)
        self._request_id_header = request_id_header
        # Requests that were refused for their head alone, by the status of the answer, since the worker started.
        self.refused: Counter[int] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, or runs the application's lifespan."""
        if scope["type"] == ScopeType.HTTP:
            fields = heads.fields(scope)
            try:
                heads.check(scope, fields)
            except RequestError as error:
                await self._refuse(scope, send, error)
                await drop_body(fields, receive)
                return
            if scope["method"] != "GET" or scope["raw_path"] not in self._own_paths:
                await self._clients(scope, fields, receive, send)
                return
            send = self._with_request_id(send)
        await self._app(scope, receive, send)

    def _with_request_id(self, send: Send) -> Send:
        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (self._request_id_header, _request_id().encode())]
            await send(message)

        return named

    async def _refuse(self, scope: HTTPScope, send: Send, error: RequestError) -> None:
        dialect = routes.match(scope["method"], scope["raw_path"]).dialect
        problem = problems.render(error, dialect, _request_id(), request_id_header=self._request_id_header)
        self.refused[problem.status] += 1
        headers = [*problem.headers, SERVER]
        await send({"type": "http.response.start", "status": problem.status, "headers": headers})
        body = b"" if scope["method"] == "HEAD" else problem.body
        await send({"type": "http.response.body", "body": body, "more_body": False})

    def __repr__(self) -> str:
        return f"Front({sorted(self._own_paths)})"


def _request_id() -> str:
    return os.urandom(16).hex()
