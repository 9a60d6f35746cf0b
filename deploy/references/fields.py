"""Fields of bodies: what each endpoint reads, what it takes, and what becomes of it.

Which fields there are, their types and bounds are those of the closed structs that bodies decode into. What becomes of
them is said in ``fieldwords``; a field without words fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec

from dataplane.api import listings
from dataplane.api.ollama import requests as ollama
from dataplane.api.openai import fields as openai
from dataplane.api.strict_json import Closed
from deploy.references import fieldwords
from deploy.references.sections import code, table
from shared import clientoptions

BODIES: Mapping[str, Closed] = {
    "/api/chat": ollama.CHAT,
    "/api/generate": ollama.GENERATE,
    "/api/embed": ollama.EMBED,
    "/api/embeddings": ollama.EMBEDDINGS,
    "/api/show": listings.SHOW,
    "/v1/chat/completions": openai.CHAT,
    "/v1/completions": openai.COMPLETIONS,
    "/v1/embeddings": openai.EMBEDDINGS,
}
_SIMPLE = {str: "text", bool: "true, false", int: "whole number", float: "number", dict: "object"}


def fields() -> str:
    """A table and a list of what is dropped, for each endpoint."""
    return "\n\n".join(_of_endpoint(endpoint, closed) for endpoint, closed in BODIES.items())


def read_by(endpoint: str) -> set[str]:
    """Paths of every field that an endpoint reads."""
    return {path for path, _ in _paths(BODIES[endpoint], "")}


def _of_endpoint(endpoint: str, closed: Closed) -> str:
    rows = []
    for path, hint in _paths(closed, ""):
        said = fieldwords.of(endpoint, path)
        rows.append((code(path), said.takes or taken(hint), said.becomes, _policy(endpoint, path)))
    text = f"#### `POST {endpoint}`\n\n" + table(("Field", "Takes", "What becomes of it", "Policy"), rows)
    ignored = list(_ignored(closed, ""))
    if ignored:
        # Listings have no such header.
        named = "" if endpoint == "/api/show" else ", and named in `X-Gateway-Ignored`"
        text += f"\n\nDropped{named}: {', '.join(code(name) for name in ignored)}."
    return text


def _paths(closed: Closed, prefix: str) -> Iterator[tuple[str, Any]]:
    hints = get_type_hints(closed.struct, include_extras=True)
    for field in msgspec.structs.fields(closed.struct):
        path, hint = prefix + field.encode_name, hints[field.name]
        member = closed.members.get(field.encode_name)
        if member is None:
            yield path, hint
            continue
        is_list = any(get_origin(part) is list for part in _parts(hint))
        # A list of parts may also be a plain text, and an object a text: then the field itself is one too.
        if is_list or any(part is str for part in _parts(hint)):
            yield path, hint
        yield from _paths(member, f"{path}[]." if is_list else f"{path}.")


def _ignored(closed: Closed, prefix: str) -> Iterator[str]:
    yield from (prefix + name for name in closed.ignored)
    for name, member in closed.members.items():
        hint = get_type_hints(closed.struct, include_extras=True)[name]
        is_list = any(get_origin(part) is list for part in _parts(hint))
        yield from _ignored(member, f"{prefix}{name}[]." if is_list else f"{prefix}{name}.")


def _policy(endpoint: str, path: str) -> str:
    """The name by which a model's policy allows or forbids the field; empty for what it cannot forbid."""
    name = fieldwords.NATIVE.get(path, path.rpartition(".")[2])
    if endpoint == "/v1/completions" and path == "logprobs":
        return "`logprobs`, `top_logprobs`"
    if endpoint == "/api/show":
        return ""
    whole = path.count(".") == 0 or path.startswith("options.") or path in fieldwords.NATIVE
    return code(name) if whole and name in clientoptions.ALL else ""


def taken(hint: Any) -> str:
    """What a field takes, in words: ``text or list of texts``."""
    words = [_words(part) for part in _parts(hint)]
    return " or ".join(dict.fromkeys(reversed(words))) if len(words) > 1 else words[0]


def _parts(hint: Any) -> list[Any]:
    if get_origin(hint) in (Union, UnionType):
        return [part for part in get_args(hint) if part is not NoneType]
    return [hint]


def _words(part: Any) -> str:
    origin = get_origin(part)
    if origin is Annotated:
        base, *extras = get_args(part)
        meta = next(extra for extra in extras if isinstance(extra, msgspec.Meta))
        return f"{_SIMPLE[base]}, {_bound(meta.ge)} to {_bound(meta.le)}"
    if origin is list:
        (item,) = get_args(part)
        return "list of texts" if item is str else "list of objects"
    if isinstance(part, type) and issubclass(part, msgspec.Struct):
        return "object"
    return _SIMPLE[origin or part]


def _bound(value: Any) -> str:
    if value in (-(2**63), 2**63 - 1):
        return "-2^63" if value < 0 else "2^63 - 1"
    return f"{value:,.0f}".replace(",", " ")
