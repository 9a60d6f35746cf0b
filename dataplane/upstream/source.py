"""The bytes of one reply under a deadline: its head, and the chunks of its body as they come.

Every fault of the transport becomes a ``ReplyError``. Nothing is wrapped around a wait: a request waits for the
connection's own future, so that each chunk costs one step and not one per layer.
"""

from __future__ import annotations

import httpx

from dataplane.upstream.connection import Connection, Headers
from dataplane.upstream.deadline import DeadlinePassedError, ReadDeadline
from dataplane.upstream.faults import Blame, ReplyError
from dataplane.upstream.transport import Origin, Transport

# How long to wait, once the final record is there, for the end of the body that lets the connection be used again.
_END_GRACE_S = 0.05


class Source:
    """One exchange on one connection. Close it: after its end the connection is used again, before that it is cut."""

    __slots__ = ("_connection", "_deadline", "_ended", "_origin", "_transport")

    def __init__(self, transport: Transport, origin: Origin, deadline: ReadDeadline) -> None:
        self._transport = transport
        self._origin = origin
        self._deadline = deadline
        self._connection: Connection | None = None
        self._ended = False

    async def head(self, request: bytes, due_s: float) -> tuple[int, Headers]:
        """Sends a request; status and headers of its reply. Raises ``ReplyError``."""
        try:
            connection = self._transport.reusable(self._origin)
            if connection is None:
                with self._deadline.until(due_s):
                    connection = await self._transport.connected(self._origin)
            self._connection = connection
            connection.send(request)
            while not connection.has_head:
                with self._deadline.until(due_s):
                    await connection.changed()
        except DeadlinePassedError as passed:
            raise _timed_out(passed) from passed
        except (httpx.ConnectError, httpx.ConnectTimeout) as fault:
            raise ReplyError(f"no connection: {fault}", blame=Blame.UNREACHABLE) from fault
        except httpx.PoolTimeout as fault:
            raise ReplyError(f"no connection: {fault}", blame=Blame.NONE) from fault
        except httpx.TransportError as fault:
            raise ReplyError(f"no reply: {fault}") from fault
        return connection.status, connection.headers

    def after(self, timeout_s: float) -> float:
        """The moment for ``chunk`` that is so far away. Raises ``ReplyError`` when the whole time is over."""
        try:
            return self._deadline.after(timeout_s)
        except DeadlinePassedError as passed:
            raise _timed_out(passed) from passed

    async def chunk(self, due_s: float) -> bytes | None:
        """The next chunk, None at the end. Raises ``ReplyError``, also when nothing came until ``due_s``."""
        connection = self._connection
        if connection is None:
            return None
        try:
            while not connection.parts:
                if connection.has_ended:
                    self._ended = True
                    return None
                with self._deadline.until(due_s):
                    await connection.changed()
        except DeadlinePassedError as passed:
            raise _timed_out(passed) from passed
        except httpx.TransportError as fault:
            raise ReplyError(f"the reply broke off: {fault}") from fault
        return connection.take()

    async def ends(self) -> bool:
        """Whether the body ends here, so that the connection can be used again; waits for that a moment only."""
        try:
            return await self.chunk(self.after(_END_GRACE_S)) is None
        except ReplyError:
            return False

    async def whole(self, *, max_bytes: int, due_s: float) -> bytes:
        """The body to its end. Raises ``ReplyError`` when it is longer, late or broken."""
        body = bytearray()
        while (chunk := await self.chunk(due_s)) is not None:
            body += chunk
            if len(body) > max_bytes:
                raise ReplyError("the reply is longer than its cap")
        return bytes(body)

    def close(self) -> None:
        """Gives the connection back if the end has been read, else closes it. Never waits; again does nothing."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._ended:
            self._transport.release(self._origin, connection)
        else:
            connection.abort()

    def __repr__(self) -> str:
        return f"Source(ended={self._ended}, open={self._connection is not None})"


def _timed_out(passed: DeadlinePassedError) -> ReplyError:
    """Our own deadline as a fault."""
    return ReplyError(f"no bytes within the deadline ({passed})", blame=Blame.NONE, timed_out=True)
