"""Cutting a stream of chunks into lines: one line is one record of Ollama's NDJSON.

Pure; chunks may be of any size, down to one byte, and the work is linear in what was received.
"""

from __future__ import annotations

MAX_RECORD_BYTES = 1024 * 1024
MAX_REPLY_BYTES = 64 * 1024 * 1024


class FramingError(Exception):
    """The stream is longer than a record or a reply may be, or ends within a line."""


class LineSplitter:
    """Collects chunks and gives complete lines, without their line feed."""

    __slots__ = ("_max_record_bytes", "_pending", "_remaining_bytes")

    def __init__(self, *, max_record_bytes: int = MAX_RECORD_BYTES, max_reply_bytes: int = MAX_REPLY_BYTES) -> None:
        self._max_record_bytes = max_record_bytes
        self._remaining_bytes = max_reply_bytes
        self._pending = bytearray()

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that this chunk completes; blank ones are left out. Raises ``FramingError`` over a cap."""
        self._remaining_bytes -= len(chunk)
        if self._remaining_bytes < 0:
            raise FramingError("the reply is longer than its cap")
        first = chunk.find(b"\n")
        if first < 0:
            self._keep(chunk)
            return []
        if first == len(chunk) - 1 and not self._pending:
            if first > self._max_record_bytes:
                raise FramingError("a record is longer than its cap")
            return [chunk[:first]] if first else []
        *lines, rest = chunk.split(b"\n")
        if self._pending:
            self._keep(lines[0])
            lines[0] = bytes(self._pending)
            self._pending.clear()
        if rest:
            self._keep(rest)
        if len(chunk) > self._max_record_bytes and max(map(len, lines)) > self._max_record_bytes:
            raise FramingError("a record is longer than its cap")
        return [line for line in lines if line and not line.isspace()]

    @property
    def has_begun(self) -> bool:
        """Whether there is part of a line that has not ended."""
        return bool(self._pending)

    def finish(self) -> None:
        """Says that nothing more comes. Raises ``FramingError`` when a line has begun and not ended."""
        if self._pending.strip():
            raise FramingError("the reply ends within a record")

    def _keep(self, part: bytes) -> None:
        self._pending += part
        if len(self._pending) > self._max_record_bytes:
            raise FramingError("a record is longer than its cap")

    def __repr__(self) -> str:
        return f"LineSplitter(pending={len(self._pending)}, remaining={self._remaining_bytes})"
