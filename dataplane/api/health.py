"""``/healthz`` and ``/readyz``: for load balancers, without credentials.

Live means that the process answers. Ready means that every check holds; when it does not, the reply names the checks
that fail and nothing else.
"""

from __future__ import annotations

from typing import Any

from litestar import Response, get
from litestar.handlers import HTTPRouteHandler

from shared.lifecycle import Readiness

_HEADERS = {"cache-control": "no-store", "server": "neuronetz-gateway"}


def routes(readiness: Readiness) -> tuple[HTTPRouteHandler, HTTPRouteHandler]:
    """The two handlers."""

    @get("/healthz", sync_to_thread=False)
    def healthz() -> Response[dict[str, Any]]:
        return Response({"status": "ok"}, headers=_HEADERS)

    @get("/readyz", sync_to_thread=False)
    def readyz() -> Response[dict[str, Any]]:
        if readiness.ready:
            return Response({"status": "ready"}, headers=_HEADERS)
        body = {"status": "not ready", "failing": list(readiness.failing)}
        return Response(body, status_code=503, headers={**_HEADERS, "retry-after": "1"})

    return healthz, readyz
