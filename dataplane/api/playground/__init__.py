"""The playground: one page that tries every endpoint with a key that stays in the page's memory.

Served only with ``PLAYGROUND_ENABLED``. The page loads nothing from anywhere: its policy allows the one script and
the one style that stand in it, by their hashes, and connections to its own origin.
"""

from __future__ import annotations

import base64
import hashlib
import re
from importlib import resources

from litestar import Response, get
from litestar.handlers import HTTPRouteHandler

_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


def page() -> str:
    """The page as it is served."""
    return resources.files(__name__).joinpath("index.html").read_text(encoding="utf-8")


def content_security_policy(html: str) -> str:
    """A policy under which nothing runs but what stands in ``html``."""
    hashes: dict[str, list[str]] = {"script": [], "style": []}
    for kind, text in _INLINE.findall(html):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        hashes[kind].append(f"'sha256-{digest}'")
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {' '.join(hashes['script'])}",
            f"style-src {' '.join(hashes['style'])}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


def route() -> HTTPRouteHandler:
    """The handler of ``/playground``."""
    html = page()
    headers = {
        "content-security-policy": content_security_policy(html),
        "cache-control": "no-store",
        "server": "neuronetz-gateway",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
    }

    @get("/playground", sync_to_thread=False, media_type="text/html")
    def playground() -> Response[str]:
        return Response(html, headers=headers)

    return playground
