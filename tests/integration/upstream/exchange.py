"""One exchange with a backend on the data plane's own connections, without an attempt around it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator

import httpx

from dataplane.upstream.connection import Headers
from dataplane.upstream.deadline import ReadDeadline
from dataplane.upstream.source import Source
from dataplane.upstream.transport import Transport, encoded_head, origin_of

TOTAL_S = 60.0
MAX_BYTES = 1_000_000


@contextlib.asynccontextmanager
async def pool() -> AsyncIterator[Transport]:
    """A transport of its own, which keeps one connection."""
    transport = Transport(connect_timeout_s=1, max_idle_per_backend=1)
    try:
        yield transport
    finally:
        await transport.aclose()


@contextlib.contextmanager
def exchange(transport: Transport, url: str) -> Iterator[Source]:
    """One exchange, closed in the end."""
    deadline = ReadDeadline(total_s=TOTAL_S)
    source = Source(transport, origin_of(httpx.URL(url)), deadline)
    try:
        yield source
    finally:
        deadline.close()
        source.close()


def post(url: str, content: bytes = b"{}") -> bytes:
    """The bytes of a request."""
    target = httpx.URL(url)
    fields = [(b"host", target.netloc), (b"content-length", b"%d" % len(content))]
    return encoded_head("POST", target, fields) + b"\r\n" + content


async def answered(transport: Transport, url: str) -> tuple[int, Headers, bytes]:
    """Status, headers and the whole body of a reply. Raises ``ReplyError``."""
    with exchange(transport, url) as source:
        status, headers = await source.head(post(url), source.after(TOTAL_S))
        return status, headers, await source.whole(max_bytes=MAX_BYTES, due_s=source.after(TOTAL_S))
