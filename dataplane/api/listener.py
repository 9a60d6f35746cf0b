"""What the kernel is told about clients' connections, where granian has no setting for it.

A reply that nobody reads stays in buffers, and its connection stays open for ever: granian's ``send`` has returned
long since, hyper waits for room without a deadline, and the client's kernel goes on answering probes. Replies to
pipelined requests are enough, without any key. ``TCP_USER_TIMEOUT`` on the listening socket ends such connections
(tcp(7): it holds while the peer's window is zero, too, and accepted sockets inherit it). Only Linux has it; elsewhere
the watch over stalled writes of ``exchange`` is all there is.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Iterator

from shared import logs

_FIND_PERIOD_S = 0.05
FIND_TIMEOUT_S = 30.0
_DESCRIPTORS = "/proc/self/fd"

_log = logs.get(__name__)


async def bound_unread_replies(port: int, *, timeout_s: float, find_timeout_s: float = FIND_TIMEOUT_S) -> None:
    """Has the kernel end connections on ``port`` whose client acknowledges nothing for so long.

    Each worker has a listening socket of its own, which granian opens after the application has started: it is looked
    for until it is there, or ``find_timeout_s`` is over: then the log says so.
    """
    if sys.platform != "linux":
        return
    try:
        async with asyncio.timeout(find_timeout_s):
            while not (found := list(_listening(port))):  # noqa: ASYNC110 - nothing announces it
                await asyncio.sleep(_FIND_PERIOD_S)
    except TimeoutError:
        _log.warning("listening_socket_not_found", port=port)
        return
    for listener in found:
        with listener:
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(timeout_s * 1000))


def _listening(port: int) -> Iterator[socket.socket]:
    """Duplicates of this process's sockets that listen on the port."""
    for name in os.listdir(_DESCRIPTORS):  # noqa: PTH208 - names are all that is wanted
        try:
            descriptor = os.dup(int(name))
        except OSError:
            # Closed since it was listed, as the listing's own one.
            continue
        try:
            candidate = socket.socket(fileno=descriptor)
        except OSError:
            os.close(descriptor)
            continue
        if _listens(candidate, port):
            yield candidate
        else:
            candidate.close()


def _listens(candidate: socket.socket, port: int) -> bool:
    return (
        candidate.family in (socket.AF_INET, socket.AF_INET6)
        and candidate.type == socket.SOCK_STREAM
        and candidate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
        and candidate.getsockname()[1] == port
    )
