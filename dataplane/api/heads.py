"""The head of a request: what stands in it, and what it must be like before anybody reads it further.

hyper, below granian, refuses most of what is malformed with an empty 400. It accepts what is judged here: a missing, a
second or a nonsensical Host, transfer codings besides ``chunked``, more headers and longer targets than any client of
ours sends. A head that two servers could read differently is refused, whoever sends it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence

from litestar.types import HTTPScope

from dataplane.api import header
from dataplane.errors import HeadersTooLargeError, MalformedRequestError, TargetTooLongError

# A proxy in front adds some; hyper itself gives up at 100 and at 16 KiB in sum.
MAX_HEADERS = 64
MAX_TARGET_BYTES = 8192
MAX_PORT = 65_535

# A name, an address, or an address in brackets; nothing that could be taken for a path, a user or a list.
_HOST = re.compile(rb"(?:[A-Za-z0-9_][A-Za-z0-9._-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?")

# What somebody here looks at, however often it was sent; everything else of a head is never read.
_READ = frozenset(header.REQUEST)

Fields = Mapping[bytes, Sequence[bytes]]


def fields(scope: HTTPScope) -> Fields:
    """The values of the headers that mean something to us, by name, in the order of the request."""
    found: dict[bytes, list[bytes]] = {}
    for name, value in scope["headers"]:
        if name in _READ:
            if name in found:
                found[name].append(value)
            else:
                found[name] = [value]
    return found


def check(scope: HTTPScope, fields: Fields) -> None:
    """Raises ``MalformedRequestError`` (400), ``TargetTooLongError`` (414) or ``HeadersTooLargeError`` (431)."""
    if len(list(scope["headers"])) > MAX_HEADERS:
        raise HeadersTooLargeError(f"more than {MAX_HEADERS} headers")
    query = scope["query_string"]
    if len(scope["raw_path"]) + len(query) + bool(query) > MAX_TARGET_BYTES:
        raise TargetTooLongError(f"the target is longer than {MAX_TARGET_BYTES} bytes")
    host = _once(fields, header.HOST, "Host")
    if not host:
        # granian puts an empty Host where none was sent, and calls HTTP/1.0, which knows none, "1".
        if scope["http_version"] == "1.1":
            raise MalformedRequestError("Host must be given")
    elif not _is_host(host):
        raise MalformedRequestError("Host must be a name or an address")
    if header.TRANSFER_ENCODING in fields:
        coding = _once(fields, header.TRANSFER_ENCODING, "Transfer-Encoding")
        if coding is None or coding.lower() != b"chunked":
            raise MalformedRequestError("Transfer-Encoding must be chunked")


def _once(fields: Fields, name: bytes, shown: str) -> bytes | None:
    """The value of a header that may not be repeated; None where it is missing."""
    values = fields.get(name)
    if values is None:
        return None
    if len(values) > 1:
        raise MalformedRequestError(f"{shown} must be given once")
    return values[0]


# Clients repeat theirs with every request.
@functools.lru_cache(maxsize=256)
def _is_host(value: bytes) -> bool:
    found = _HOST.fullmatch(value)
    return found is not None and (found[1] is None or int(found[1]) <= MAX_PORT)
