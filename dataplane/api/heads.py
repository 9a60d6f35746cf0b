"""What the head of a request must be like before anybody reads it further.

hyper, below granian, refuses most of what is malformed with an empty 400. It accepts what is judged here: a missing, a
second or a nonsensical Host, transfer codings besides ``chunked``, more headers and longer targets than any client of
ours sends. A head that two servers could read differently is refused, whoever sends it.
"""

from __future__ import annotations

import functools
import re

from litestar.types import HTTPScope

from dataplane.api import header
from dataplane.errors import HeadersTooLargeError, MalformedRequestError, TargetTooLongError

# A proxy in front adds some; hyper itself gives up at 100 and at 16 KiB in sum.
MAX_HEADERS = 64
MAX_TARGET_BYTES = 8192
MAX_PORT = 65_535

# A name, an address, or an address in brackets; nothing that could be taken for a path, a user or a list.
_HOST = re.compile(rb"(?:[A-Za-z0-9_][A-Za-z0-9._-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?")


def check(scope: HTTPScope) -> None:
    """Raises ``MalformedRequestError`` (400), ``TargetTooLongError`` (414) or ``HeadersTooLargeError`` (431)."""
    headers = list(scope["headers"])
    if len(headers) > MAX_HEADERS:
        raise HeadersTooLargeError(f"more than {MAX_HEADERS} headers")
    query = scope["query_string"]
    if len(scope["raw_path"]) + len(query) + bool(query) > MAX_TARGET_BYTES:
        raise TargetTooLongError(f"the target is longer than {MAX_TARGET_BYTES} bytes")
    host: bytes | None = None
    coding: bytes | None = None
    for name, value in headers:
        if name == header.HOST:
            if host is not None:
                raise MalformedRequestError("Host must be given once")
            host = value
        elif name == header.TRANSFER_ENCODING:
            if coding is not None:
                raise MalformedRequestError("Transfer-Encoding must be given once")
            coding = value
    if not host:
        # granian puts an empty Host where none was sent, and calls HTTP/1.0, which knows none, "1".
        if scope["http_version"] == "1.1":
            raise MalformedRequestError("Host must be given")
    elif not _is_host(host):
        raise MalformedRequestError("Host must be a name or an address")
    if coding is not None and coding.lower() != b"chunked":
        raise MalformedRequestError("Transfer-Encoding must be chunked")


# Clients repeat theirs with every request.
@functools.lru_cache(maxsize=256)
def _is_host(value: bytes) -> bool:
    found = _HOST.fullmatch(value)
    return found is not None and (found[1] is None or int(found[1]) <= MAX_PORT)
