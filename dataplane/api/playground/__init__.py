"""The playground: one page that tries every endpoint with a key that stays in the page's memory.

Served only with ``PLAYGROUND_ENABLED``. The page is put together once, from the files beside this module, and loads
nothing from anywhere: its policy allows the one script and the one style that stand in it, by their hashes, and
connections to its own origin. May import litestar.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from litestar import Response, get
from litestar.handlers import HTTPRouteHandler

PATH = "/playground"
_SCRIPTS = ("endpoints.js", "reading.js", "page.js", "run.js")
_STYLE = "style.css"


def page() -> tuple[str, str]:
    """The page, and the policy under which nothing runs but what stands in it."""
    script = '"use strict";\n' + "\n".join(_text(name) for name in _SCRIPTS)
    style = _text(_STYLE)
    html = _text("index.html")
    html = html.replace("<style></style>", f"<style>{style}</style>").replace(
        "<script></script>", f"<script>{script}</script>"
    )
    return html, _policy(script=script, style=style)


def route() -> HTTPRouteHandler:
    """The handler of ``/playground``."""
    html, policy = page()
    headers = {
        "content-security-policy": policy,
        "cache-control": "no-store",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
        "referrer-policy": "no-referrer",
        "server": "neuronetz-gateway",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
    }

    @get(PATH, sync_to_thread=False, media_type="text/html")
    def playground() -> Response[str]:
        return Response(html, headers=headers)

    return playground


def _policy(*, script: str, style: str) -> str:
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_digest(script)}'",
            f"style-src '{_digest(style)}'",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _text(name: str) -> str:
    return resources.files(__name__).joinpath(name).read_text(encoding="utf-8")
