"""A descriptor that lines are written to and that nobody waits for: a log without a reader must stop no request.

A pipe whose reader stalls takes nothing more, and a plain write would wait for it for ever; a full disk refuses. Either
costs the lines, and whoever writes them says later how many.
"""

from __future__ import annotations

import os
import select

# What a pipe that says that it is ready takes without making the writer wait, and in one piece (POSIX: PIPE_BUF).
PIECE_BYTES = getattr(select, "PIPE_BUF", 512)


class Output:
    """Writes whole lines to a descriptor, or says that it could not."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        # A line was begun and not ended.
        self._is_torn = False

    def write(self, raw: bytes, *, patience_s: float = 0.0) -> bool:
        """Whether all of it was written; what takes nothing for ``patience_s`` is given up. Never raises."""
        rest = memoryview(b"\n" + raw if self._is_torn else raw)
        size = len(rest)
        try:
            while rest and self._takes_some(patience_s):
                rest = rest[os.write(self._descriptor, rest[:PIECE_BYTES]) :]
        except OSError:
            # No room, nobody at the other end: the same to a log.
            pass
        if len(rest) < size:
            self._is_torn = bool(rest)
        return not rest

    def _takes_some(self, patience_s: float) -> bool:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        return bool(poll.poll(patience_s * 1000))

    def __repr__(self) -> str:
        return f"Output({self._descriptor}, torn={self._is_torn})"
