"""The routes of Ollama: which path takes which method, and plausible answers of those that a gateway must never reach.

Sources: Ollama server/routes.go GenerateRoutes; gin's texts for unknown paths and wrong methods.
"""

from typing import Final

from deploy.mock_ollama.engine import VERSION, Engine
from deploy.mock_ollama.framing import RawRequest
from deploy.mock_ollama.performance import Performance, stream, whole

INFERENCE_PATHS: Final = frozenset({"/api/chat", "/api/generate", "/api/embed", "/api/embeddings"})
_TEXT: Final = "text/plain"
_SUCCESS: Final = (b'{"status":"pulling manifest"}\n', b'{"status":"success"}\n')
_METHODS: Final = {
    "/": ("GET", "HEAD"),
    "/api/version": ("GET", "HEAD"),
    "/api/status": ("GET",),
    "/api/tags": ("GET", "HEAD"),
    "/api/show": ("POST",),
    "/api/ps": ("GET",),
    "/api/generate": ("POST",),
    "/api/chat": ("POST",),
    "/api/embed": ("POST",),
    "/api/embeddings": ("POST",),
    "/api/pull": ("POST",),
    "/api/push": ("POST",),
    "/api/create": ("POST",),
    "/api/copy": ("POST",),
    "/api/delete": ("DELETE",),
    "/api/me": ("POST",),
    "/api/signout": ("POST",),
    "/api/experimental/web_search": ("POST",),
    "/api/experimental/web_fetch": ("POST",),
    "/api/experimental/model-recommendations": ("GET",),
}
_PREFIXES: Final = {"/api/blobs/": ("POST", "HEAD"), "/api/user/keys/": ("DELETE",)}
_STATUS: Final = {
    True: whole(b'{"cloud":{"disabled":true,"source":"env"}}'),
    False: whole(b'{"cloud":{"disabled":false,"source":"none"}}'),
}
_FIXED: Final = {
    "/": whole(b"Ollama is running", content_type="text/plain; charset=utf-8"),
    "/api/version": whole(b'{"version":"%b"}' % VERSION.encode()),
    "/api/pull": stream(_SUCCESS),
    "/api/push": stream(_SUCCESS),
    "/api/create": stream(_SUCCESS),
    "/api/copy": Performance(),
    "/api/delete": Performance(),
    "/api/me": whole(b'{"id":"1","email":"operator@example.com","name":"operator","plan":"pro"}'),
    "/api/signout": whole(b"null"),
    "/api/experimental/web_search": whole(b'{"results":[]}'),
    "/api/experimental/web_fetch": whole(b'{"title":"","content":"","links":[]}'),
    "/api/experimental/model-recommendations": whole(b'{"recommendations":[]}'),
}


def answer(engine: Engine, request: RawRequest) -> Performance:
    """The honest reply to any request."""
    methods = _methods(request.path)
    if methods is None:
        return _unknown(request)
    if request.method not in methods:
        wrong = whole(b"405 method not allowed", status=405, content_type=_TEXT)
        return wrong.with_header("Allow", ", ".join(methods))
    if request.path in _FIXED:
        return _FIXED[request.path]
    if request.path == "/api/status":
        return _STATUS[engine.settings.cloud_disabled]
    if request.path.startswith("/api/blobs/"):
        return Performance(status=201 if request.method == "POST" else 200)
    if request.path.startswith("/api/user/keys/"):
        return whole(b"null")
    return engine.answer(request)


def _methods(path: str) -> tuple[str, ...] | None:
    if path in _METHODS:
        return _METHODS[path]
    for prefix, methods in _PREFIXES.items():
        rest = path.removeprefix(prefix)
        if rest not in {path, ""} and "/" not in rest:
            return methods
    return None


def _unknown(request: RawRequest) -> Performance:
    """404, or gin's redirect when only a trailing slash is too many."""
    plain = request.path[:-1]
    if request.path.endswith("/") and request.method in (_methods(plain) or ()):
        status = 301 if request.method == "GET" else 307
        return Performance(status=status, headers=(("Location", plain),))
    return whole(b"404 page not found", status=404, content_type=_TEXT)
