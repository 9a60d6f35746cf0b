"""How a backend's credential becomes a header: the same for a probe, for discovery and for a request.

A backend has a header name, a scheme and perhaps a token. The scheme precedes the token (``Bearer abc``); an empty
scheme sends the bare token, for servers that want ``X-API-Key: abc``.
"""

from __future__ import annotations

from shared.redaction import Secret

DEFAULT_HEADER = "Authorization"
DEFAULT_SCHEME = "Bearer"


def credential_header(*, header: str, scheme: str, token: Secret | None) -> tuple[str, str] | None:
    """Name and value of the header that proves us to a backend; None without a token. Never log the value."""
    if not token:
        return None
    return header, f"{scheme} {token.reveal()}" if scheme else token.reveal()
