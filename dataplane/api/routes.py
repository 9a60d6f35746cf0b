"""Which request goes where: an exact match on the raw path, against one list.

Percent-encoding, doubled slashes, dots, a trailing slash or another case never match: such a request is judged by what
it *tries* to be only to choose between the two refusals, 403 for a route that manages Ollama or leaves the building and
404 for everything else. Source of Ollama's routes: ollama ``server/routes.go``, August 2026.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from urllib.parse import unquote_to_bytes

import msgspec

from dataplane.api import ollama, openai
from dataplane.api.dialect import Endpoint
from dataplane.values import Dialect


class Kind(Enum):
    """What a route does."""

    INFER = auto()
    TAGS = auto()
    VERSION = auto()
    SHOW = auto()
    MODELS = auto()
    MODEL = auto()
    LIVENESS = auto()
    BLOCKED = auto()
    UNKNOWN = auto()


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One route: ``name`` is what the audit and the metrics call it."""

    kind: Kind
    name: str
    dialect: Dialect
    endpoint: Endpoint | None = None


_MODEL_PREFIX = b"/v1/models/"
# What manages Ollama, tells of it, or leaves the building; with everything below.
BLOCKED: tuple[str, ...] = (
    "/api/pull", "/api/push", "/api/create", "/api/copy", "/api/delete", "/api/blobs", "/api/ps", "/api/me",
    "/api/signout", "/api/status", "/api/user", "/api/experimental",
    "/v1/responses", "/v1/messages", "/v1/audio", "/v1/files", "/v1/images", "/v1/fine_tuning", "/v1/batches",
    "/v1/uploads", "/v1/assistants", "/v1/threads", "/v1/vector_stores",
    "/debug",
)  # fmt: skip
_BLOCKED = re.compile(rb"(?:%s)(?:/.*)?" % b"|".join(re.escape(path.encode()) for path in BLOCKED))
_MAX_DECODINGS = 4


def _table() -> dict[tuple[str, bytes], Route]:
    table: dict[tuple[str, bytes], Route] = {}
    for endpoint in (*ollama.ENDPOINTS, *openai.ENDPOINTS):
        route = Route(kind=Kind.INFER, name=endpoint.name, dialect=endpoint.dialect, endpoint=endpoint)
        table["POST", endpoint.name.encode()] = route
    for method in ("GET", "HEAD"):
        table[method, b"/"] = Route(kind=Kind.LIVENESS, name="/", dialect=Dialect.OLLAMA)
        table[method, b"/api/tags"] = Route(kind=Kind.TAGS, name="/api/tags", dialect=Dialect.OLLAMA)
        table[method, b"/api/version"] = Route(kind=Kind.VERSION, name="/api/version", dialect=Dialect.OLLAMA)
        table[method, b"/v1/models"] = Route(kind=Kind.MODELS, name="/v1/models", dialect=Dialect.OPENAI)
    table["POST", b"/api/show"] = Route(kind=Kind.SHOW, name="/api/show", dialect=Dialect.OLLAMA)
    return table


ROUTES = _table()

MODEL = Route(kind=Kind.MODEL, name="/v1/models/{model}", dialect=Dialect.OPENAI)
_REFUSALS = {
    (kind, dialect): Route(kind=kind, name=name, dialect=dialect)
    for kind, name in ((Kind.BLOCKED, "blocked"), (Kind.UNKNOWN, "unknown"))
    for dialect in Dialect
}


def match(method: str, raw_path: bytes) -> Route:
    """The route of a request; never fails: what is not on the list is blocked or unknown."""
    route = ROUTES.get((method, raw_path))
    if route is not None:
        return route
    if method in ("GET", "HEAD") and raw_path.startswith(_MODEL_PREFIX) and len(raw_path) > len(_MODEL_PREFIX):
        return MODEL
    plain = _plain(raw_path)
    dialect = Dialect.OPENAI if plain.startswith(b"/v1/") else Dialect.OLLAMA
    return _REFUSALS[Kind.BLOCKED if _BLOCKED.fullmatch(plain) else Kind.UNKNOWN, dialect]


def tail(raw_path: bytes) -> bytes:
    """What stands behind ``/v1/models/``, as it was sent."""
    return raw_path[len(_MODEL_PREFIX) :]


def _plain(raw_path: bytes) -> bytes:
    """What a path may have been meant to be: decoded, lower case, without empty, dot and parameter segments."""
    path = raw_path
    for _ in range(_MAX_DECODINGS):
        decoded = unquote_to_bytes(path)
        if decoded == path:
            break
        path = decoded
    path = re.sub(rb"^[a-z][a-z0-9+.-]*://[^/]*", b"", path.lower().replace(b"\\", b"/"))
    segments: list[bytes] = []
    for segment in re.split(rb"[?#]", path, maxsplit=1)[0].split(b"/"):
        name = segment.partition(b";")[0].strip(b" \t\r\n\x00")
        if name in (b"", b"."):
            continue
        if name == b"..":
            if segments:
                segments.pop()
            continue
        segments.append(name)
    return b"/" + b"/".join(segments)
