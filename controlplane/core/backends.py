"""Backends: their names, addresses and credentials, and the order in which requests try them. Pure rules.

Backends come from two places. *Static* ones are in the environment (``OLLAMA_BACKENDS``, or ``OLLAMA_BASE_URL`` and
``OLLAMA_AUTH_TOKEN`` for a single one) and go first; *added* ones came by RPC and follow. A lower priority goes first,
equal ones share the load by their weights. A static backend's default priority is its position in the list.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NewType
from urllib.parse import urlsplit

import msgspec

from shared.backends import DEFAULT_HEADER, DEFAULT_SCHEME
from shared.redaction import REDACTED, Secret

BackendName = NewType("BackendName", str)

VARIABLE = "OLLAMA_BACKENDS"
SINGLE_NAME = BackendName("default")
BARE_SCHEME = "none"
ADDED_PRIORITY = 100
MAX_PRIORITY = 100_000
DEFAULT_WEIGHT = 1
MAX_WEIGHT = 1000
MAX_BACKENDS = 256
MAX_TOKEN_LENGTH = 4096

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\.?", re.ASCII)
# RFC 9110, section 5.6.2.
_HTTP_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}", re.ASCII)
_CREDENTIAL = re.compile(r"[\x21-\x7e]+")
# Headers that frame the message, belong to one connection or are set by the gateway itself.
_RESERVED_HEADERS = frozenset(
    {
        *("connection", "content-encoding", "content-length", "content-type", "expect", "host", "keep-alive"),
        *("proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding"),
        *("upgrade", "accept", "accept-encoding", "origin", "user-agent", "x-request-id"),
    }
)


class BackendsError(ValueError):
    """All faults of a description of backends, one phrase each; never with a token or an address in it."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = tuple(faults)


class StaticBackend(msgspec.Struct, frozen=True, kw_only=True):
    """A backend from the environment."""

    name: BackendName
    url: str
    token: Secret | None = None
    header: str = DEFAULT_HEADER
    # Empty sends the bare token.
    scheme: str = DEFAULT_SCHEME
    priority: int = 0
    weight: int = DEFAULT_WEIGHT


class AddedBackend(msgspec.Struct, frozen=True, kw_only=True):
    """A backend that was added by RPC; its token is sealed with its name."""

    name: BackendName
    url: str
    sealed_token: str | None = None
    header: str = DEFAULT_HEADER
    scheme: str = DEFAULT_SCHEME
    priority: int = ADDED_PRIORITY
    weight: int = DEFAULT_WEIGHT


def check_name(text: Any) -> BackendName:
    """The name; raises ``ValueError`` with the rule."""
    if not isinstance(text, str) or _NAME.fullmatch(text) is None:
        raise ValueError("must have 1 to 63 lower-case letters, digits and inner hyphens")
    return BackendName(text)


def check_url(text: Any) -> str:
    """The address as ``scheme://host[:port]`` without a trailing slash; raises ``ValueError`` with the rule."""
    rule = "must be http:// or https:// with a host and perhaps a port, and nothing else"
    if not isinstance(text, str) or not text.isascii() or not text.isprintable() or re.search(r"[ %\\]", text):
        raise ValueError(rule)
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(rule) from None
    if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc or port == 0:
        raise ValueError(rule)
    if parts.path not in ("", "/") or "?" in text or "#" in text or parts.netloc.endswith(":"):
        raise ValueError(rule)
    if ":" in host:
        try:
            host = f"[{ipaddress.IPv6Address(host)}]"
        except ValueError:
            raise ValueError(rule) from None
    elif _HOST.fullmatch(host) is None:
        raise ValueError(rule)
    return f"{parts.scheme}://{host}" if port is None else f"{parts.scheme}://{host}:{port}"


def check_header(text: Any) -> str:
    """The name of the credential's header; raises ``ValueError`` with the rule."""
    if not isinstance(text, str) or _HTTP_TOKEN.fullmatch(text) is None:
        raise ValueError("must be the name of an HTTP header")
    if text.lower() in _RESERVED_HEADERS:
        raise ValueError("must not be a header that HTTP or the gateway itself uses")
    return text


def check_scheme(text: Any) -> str:
    """What precedes the token, empty for ``none``; raises ``ValueError`` with the rule."""
    if not isinstance(text, str) or (text and _HTTP_TOKEN.fullmatch(text) is None):
        raise ValueError(f'must be one word, or "{BARE_SCHEME}" for the bare token')
    return "" if text.lower() == BARE_SCHEME else text


def check_token(text: Any) -> Secret | None:
    """The token, None when it is empty; raises ``ValueError`` with the rule, without the token."""
    if text is None or text == "":
        return None
    if not isinstance(text, str) or len(text) > MAX_TOKEN_LENGTH or _CREDENTIAL.fullmatch(text) is None:
        raise ValueError(f"must have at most {MAX_TOKEN_LENGTH} visible ASCII characters and no spaces")
    if text == REDACTED:
        raise ValueError("is the redacted form of a token")
    return Secret(text)


def check_priority(value: Any) -> int:
    """The priority; raises ``ValueError`` with the rule."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_PRIORITY:
        raise ValueError(f"must be a whole number from 0 to {MAX_PRIORITY}")
    return value


def check_weight(value: Any) -> int:
    """The weight; raises ``ValueError`` with the rule."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_WEIGHT:
        raise ValueError(f"must be a whole number from 1 to {MAX_WEIGHT}")
    return value


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "name": check_name,
    "url": check_url,
    "token": check_token,
    "header": check_header,
    "scheme": check_scheme,
    "priority": check_priority,
    "weight": check_weight,
}
_REQUIRED = ("name", "url")


def parse_backends(text: str) -> tuple[StaticBackend, ...]:
    """The backends of ``OLLAMA_BACKENDS``, in routing order.

    ``text`` is a JSON list of objects with ``name``, ``url`` and perhaps ``token``, ``header``, ``scheme``,
    ``priority``, ``weight``. Raises ``BackendsError`` with every fault by index and field (``[1].url must be …``).
    """
    try:
        items = json.loads(text, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError):
        # The decoder's own message may quote the text, and with it a token.
        raise BackendsError(["must be a JSON list of objects without duplicate fields"]) from None
    if not isinstance(items, list):
        raise BackendsError(["must be a JSON list"])
    if len(items) > MAX_BACKENDS:
        raise BackendsError([f"must have at most {MAX_BACKENDS} backends"])
    faults: list[str] = []
    backends = [backend for index, item in enumerate(items) if (backend := _parse_one(index, item, faults))]
    faults.extend(_duplicates(items))
    if faults:
        raise BackendsError(faults)
    return tuple(sorted(backends, key=lambda backend: backend.priority))


def single_backend(base_url: str, token: Secret | None) -> StaticBackend:
    """The only backend of a deployment that names one address, called ``default``; raises ``BackendsError``."""
    try:
        url = check_url(base_url)
    except ValueError as fault:
        raise BackendsError([f"the address {fault}"]) from None
    try:
        return StaticBackend(name=SINGLE_NAME, url=url, token=check_token(token.reveal() if token else None))
    except ValueError as fault:
        raise BackendsError([f"the token {fault}"]) from None


def serialize(backends: Iterable[StaticBackend], *, redacted: bool) -> str:
    """The backends as the text of ``OLLAMA_BACKENDS``, on one line; ``redacted`` writes ``***`` for every token.

    Not redacted, ``parse_backends`` reads the same backends again.
    """
    return json.dumps([_as_item(index, backend, redacted=redacted) for index, backend in enumerate(backends)])


def redacted_line(backends: Iterable[StaticBackend | AddedBackend]) -> str:
    """``OLLAMA_BACKENDS=…`` with these backends, added ones after static ones, and ``***`` for every token."""
    known = [(isinstance(backend, AddedBackend), backend) for backend in backends]
    known.sort(key=lambda pair: (pair[0], pair[1].priority))
    priorities = ranks((added, backend.priority) for added, backend in known)
    shown = [
        StaticBackend(
            name=backend.name,
            url=backend.url,
            token=Secret(REDACTED) if _has_token(backend) else None,
            header=backend.header,
            scheme=backend.scheme,
            priority=priority,
            weight=backend.weight,
        )
        for (_, backend), priority in zip(known, priorities, strict=True)
    ]
    return f"{VARIABLE}={serialize(shown, redacted=True)}"


def _has_token(backend: StaticBackend | AddedBackend) -> bool:
    return bool(backend.token) if isinstance(backend, StaticBackend) else backend.sealed_token is not None


def ranks(keys: Iterable[tuple[int, int]]) -> list[int]:
    """Priorities as published: counted from 0, equal where the sorted keys (added?, priority) are equal."""
    result: list[int] = []
    last: tuple[int, int] | None = None
    for key in keys:
        result.append(0 if last is None else result[-1] + (key != last))
        last = key
    return result


def _parse_one(index: int, item: Any, faults: list[str]) -> StaticBackend | None:
    if not isinstance(item, dict):
        faults.append(f"[{index}] must be an object")
        return None
    values: dict[str, Any] = {"priority": index}
    found = [f"[{index}].{field} is required" for field in _REQUIRED if field not in item]
    unknown = sum(field not in _CHECKS for field in item)
    if unknown:
        found.append(f"[{index}] has {unknown} unknown field(s); known are {', '.join(_CHECKS)}")
    for field, check in _CHECKS.items():
        if item.get(field) is None and field not in _REQUIRED:
            continue
        try:
            if field in item:
                values[field] = check(item[field])
        except ValueError as fault:
            found.append(f"[{index}].{field} {fault}")
    faults.extend(found)
    return None if found else StaticBackend(**values)


def _duplicates(items: list[Any]) -> list[str]:
    first: dict[str, int] = {}
    faults = []
    for index, item in enumerate(items):
        name = item.get("name") if isinstance(item, dict) else None
        if not isinstance(name, str):
            continue
        if name in first:
            faults.append(f"[{index}].name is the same as that of [{first[name]}]")
        else:
            first[name] = index
    return faults


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("duplicate fields")
    return fields


def _as_item(index: int, backend: StaticBackend, *, redacted: bool) -> dict[str, Any]:
    item: dict[str, Any] = {"name": backend.name, "url": backend.url}
    if backend.token:
        item["token"] = REDACTED if redacted else backend.token.reveal()
    if backend.header != DEFAULT_HEADER:
        item["header"] = backend.header
    if backend.scheme != DEFAULT_SCHEME:
        item["scheme"] = backend.scheme or BARE_SCHEME
    if backend.priority != index:
        item["priority"] = backend.priority
    if backend.weight != DEFAULT_WEIGHT:
        item["weight"] = backend.weight
    return item
