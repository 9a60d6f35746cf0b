"""The address of Postgres: what ``DATABASE_URL`` may look like and what the driver is told for it."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

SCHEMES = ("postgres", "postgresql", "postgresql+asyncpg")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1", ""})


def connection_options(url: str) -> dict[str, Any]:
    """What asyncpg needs for a ``DATABASE_URL``. Raises ``ValueError`` with the rule that the text breaks.

    Loopback is spoken to without TLS unless ``sslmode`` asks for it; elsewhere asyncpg's default holds (``prefer``).
    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise ValueError("must start with postgres://, postgresql:// or postgresql+asyncpg://")
    if not parts.path.strip("/"):
        raise ValueError("must name a database")
    query = parse_qs(parts.query)
    try:
        host = parts.hostname or (query["host"][0] if "host" in query else "")
        _ = parts.port
    except ValueError:
        raise ValueError("must have a valid host and port") from None
    # SQLAlchemy's spelling of the same option.
    if "ssl" in query and "sslmode" not in query:
        query["sslmode"] = query.pop("ssl")
    options: dict[str, Any] = {}
    if "sslmode" not in query and host in _LOOPBACK:
        options["ssl"] = False
    options["dsn"] = urlunsplit(("postgresql", parts.netloc, parts.path, urlencode(query, doseq=True), ""))
    return options
