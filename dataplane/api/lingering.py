"""What is left of a body that nobody wanted, read and dropped once the refusal has left.

Closing a connection on which unread bytes have arrived resets it, and a client that is still writing then sees the
reset instead of the refusal (RFC 9112, section 9.6); Go's client reports that as a failed write, and a proxy built on
it as a 502. So who is refused may go on writing for a while. granian hands out the rest of a body also after the reply
(measured with 2.8.7).
"""

from __future__ import annotations

import asyncio

from litestar.types import Receive

from dataplane.api import header
from dataplane.api.heads import Fields

# Whoever writes longer or more than this without reading is cut.
LINGER_S = 2.0
LINGER_BYTES = 16 * 2**20

_NONE = [b"0"]


async def drop_body(fields: Fields, receive: Receive) -> None:
    """Reads the rest of a request's body, within the bounds above. Call it after the last byte of the reply."""
    if not _is_sending(fields):
        return
    size = 0
    try:
        async with asyncio.timeout(LINGER_S):
            while size < LINGER_BYTES:
                message = await receive()
                if message["type"] != "http.request" or not message["more_body"]:
                    return
                size += len(message["body"])
    except TimeoutError:
        return


def _is_sending(fields: Fields) -> bool:
    """Whether a body is on its way: one was declared, and not held back until somebody asks for it."""
    if header.EXPECT in fields:
        return False
    return header.TRANSFER_ENCODING in fields or fields.get(header.CONTENT_LENGTH, _NONE) != _NONE
