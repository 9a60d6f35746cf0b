"""Who may talk to the mock: Ollama's checks of Origin and Host, and an optional bearer token as a proxy would ask for.

Sources: Ollama envconfig/config.go AllowedOrigins, server/routes.go allowedHostsMiddleware, allowedHost.
"""

import ipaddress
import re
import socket
from typing import Final

from deploy.mock_ollama.framing import RawRequest
from deploy.mock_ollama.performance import Performance, whole
from deploy.mock_ollama.settings import Settings

_ORIGIN: Final = re.compile(
    r"https?://(localhost|127\.0\.0\.1|0\.0\.0\.0)(:[^/]*)?"
    r"|(app|file|tauri|vscode-webview|vscode-file)://.*"
    r"|(chrome|safari|moz|ms-browser)-extension://.*"
)
_LOCAL_SUFFIXES: Final = (".localhost", ".local", ".internal")
_EMPTY_403: Final = Performance(status=403)
_UNAUTHORIZED: Final = whole(b'{"error":"unauthorized"}', status=401)


def refusal(request: RawRequest, settings: Settings, *, checks_host: bool) -> Performance | None:
    """The reply to a request that must not be answered, or None; Host is checked on loopback addresses only."""
    if settings.token and request.header("authorization") != f"Bearer {settings.token}":
        return _UNAUTHORIZED
    if not settings.checks_origin:
        return None
    host = request.header("host") or ""
    origin = request.header("origin")
    if origin and origin not in {f"http://{host}", f"https://{host}"} and not _ORIGIN.fullmatch(origin):
        return _EMPTY_403
    return _EMPTY_403 if checks_host and not _is_local(host) else None


def _is_local(host_port: str) -> bool:
    host = host_port.rsplit(":", 1)[0] if re.search(r":\d+$", host_port) else host_port
    host = host.strip("[]").lower()
    if host in {"", "localhost", socket.gethostname().lower()} or host.endswith(_LOCAL_SUFFIXES):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_private or address.is_unspecified
