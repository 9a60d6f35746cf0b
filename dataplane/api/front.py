"""What granian calls: the first look at a request, before Litestar sees it.

Litestar's router is generous: it decodes, drops doubled and trailing slashes, and answers a wrong method in words of
its own. Here a path is its bytes. So a path of Litestar's own (health, playground) is passed on only where it stands
exactly so; everything else is shown to the router as ``/``, which is the mount of ``server.Server``, and judged there
by its raw path.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from dataplane.api import heads, problems, routes
from dataplane.api.exchange import SERVER
from dataplane.errors import RequestError

_MOUNT = "/"


class Front:
    """The outermost ASGI application. ``own_paths`` are those that Litestar answers itself, to GET alone."""

    def __init__(self, app: ASGIApp, *, own_paths: Iterable[str], request_id_header: bytes) -> None:
        self._app = app
        self._own_paths = frozenset(path.encode() for path in own_paths)
        self._request_id_header = request_id_header

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, or runs the application's lifespan."""
        if scope["type"] == ScopeType.HTTP:
            try:
                heads.check(scope)
            except RequestError as error:
                await self._refuse(scope, send, error)
                return
            if scope["method"] != "GET" or scope["raw_path"] not in self._own_paths:
                scope["path"] = _MOUNT
        await self._app(scope, receive, send)

    async def _refuse(self, scope: HTTPScope, send: Send, error: RequestError) -> None:
        dialect = routes.match(scope["method"], scope["raw_path"]).dialect
        request_id = os.urandom(16).hex()
        problem = problems.render(error, dialect, request_id, request_id_header=self._request_id_header)
        headers = [*problem.headers, SERVER]
        await send({"type": "http.response.start", "status": problem.status, "headers": headers})
        body = b"" if scope["method"] == "HEAD" else problem.body
        await send({"type": "http.response.body", "body": body, "more_body": False})

    def __repr__(self) -> str:
        return f"Front({sorted(self._own_paths)})"
