"""Endpoints: every route of the data plane, and what never gets through. Source: ``dataplane.api.routes``."""

from __future__ import annotations

from dataplane.api import playground, routes
from dataplane.values import Dialect
from deploy.references.sections import code, table

# What each does; beside it who may ask.
_WORDS = {
    "/api/chat": "The next message of a conversation",
    "/api/generate": "The continuation of a prompt",
    "/api/embed": "Embeddings of one or several texts",
    "/api/embeddings": "The embedding of one text, in Ollama's older form",
    "/api/show": "What one model is: details, capabilities, length of its context. Template, system prompt and "
    "Modelfile stay with the operator",
    "/api/tags": "The models that the key may use",
    "/api/version": "The version of Ollama's API that this one corresponds to",
    "/v1/chat/completions": "The next message of a conversation",
    "/v1/completions": "The continuation of a prompt",
    "/v1/embeddings": "Embeddings of one or several texts",
    "/v1/models": "The models that the key may use",
    "/v1/models/{model}": "One of them; the name may hold `/` and `:`, or have them percent-encoded",
    "/": "A text that says that the gateway runs",
    "/healthz": "200 while the process answers",
    "/readyz": "200 while every check holds, else 503 with the names of those that fail",
    playground.PATH: "The [playground](PLAYGROUND.md), where `PLAYGROUND_ENABLED` is true",
}
_STREAMS = {
    "/api/chat": "NDJSON, unless `stream` is false",
    "/api/generate": "NDJSON, unless `stream` is false",
    "/v1/chat/completions": "SSE, if `stream` is true",
    "/v1/completions": "SSE, if `stream` is true",
}
# Litestar answers these itself, to GET alone.
_OWN = ("/healthz", "/readyz", playground.PATH)
_OPEN = ("/", *_OWN)
_DIALECTS = {Dialect.OLLAMA: "Ollama", Dialect.OPENAI: "OpenAI"}


def paths() -> tuple[str, ...]:
    """Every path that is answered."""
    named = dict.fromkeys(route.name for route in routes.ROUTES.values())
    return (*named, routes.MODEL.name, *_OWN)


def endpoints() -> str:
    """The table of endpoints."""
    methods: dict[str, list[str]] = {routes.MODEL.name: ["GET", "HEAD"]} | {path: ["GET"] for path in _OWN}
    dialects = {routes.MODEL.name: _DIALECTS[routes.MODEL.dialect]}
    for (method, _), route in routes.ROUTES.items():
        methods.setdefault(route.name, []).append(method)
        dialects[route.name] = _DIALECTS[route.dialect]
    ordered = sorted(paths(), key=lambda path: (path in _OPEN, dialects.get(path, "~"), list(_WORDS).index(path)))
    return table(
        ("Endpoint", "Dialect", "Needs a key", "Streams", "What it answers"),
        (
            (
                code(f"{', '.join(methods[path])} {path}"),
                "" if path in _OPEN else dialects[path],
                "no" if path in _OPEN else "yes",
                _STREAMS.get(path, "no"),
                _WORDS[path],
            )
            for path in ordered
        ),
    )


def blocked() -> str:
    """The list of blocked paths."""
    return ", ".join(code(path) for path in routes.BLOCKED)
