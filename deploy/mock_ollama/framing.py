"""Cuts the bytes of a connection into requests, and keeps each request's bytes exactly as they came."""

from dataclasses import dataclass
from typing import Final

import httptools

_MAX_HEAD_BYTES: Final = 1 << 20


class MalformedRequestError(ValueError):
    """Bytes that are no HTTP request; the connection is answered with 400 and closed, as Go's server does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRequest:
    """One request: the raw bytes of its head and body, and what they say."""

    method: str
    target: str
    path: str
    headers: tuple[tuple[bytes, bytes], ...]
    head: bytes
    raw_body: bytes
    body: bytes
    keep_alive: bool

    def header(self, name: str) -> str | None:
        """The first header of that name (lower case)."""
        wanted = name.encode()
        return next((value.decode("latin-1") for key, value in self.headers if key.lower() == wanted), None)


class RequestReader:
    """Collects bytes until whole requests are there."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._sink: _Sink | None = None
        self._chunks: _ChunkEnd | None = None
        self._head_bytes = 0
        self._body_bytes = 0

    def __repr__(self) -> str:
        return f"RequestReader(buffered_bytes={len(self._buffer)})"

    def feed(self, data: bytes) -> None:
        """Add bytes as they arrive."""
        self._buffer += data

    @property
    def wants_continue(self) -> bool:
        """Whether the peer holds its body back until it is told to go on."""
        return self._sink is not None and self._sink.header(b"expect").lower() == b"100-continue"

    def take(self) -> RawRequest | None:
        """The next whole request, or None; raises MalformedRequestError."""
        if self._sink is None and not self._read_head():
            return None
        if self._chunks is not None:
            end = self._chunks.find(self._buffer)
            if end is None:
                return None
            self._body_bytes = end - self._head_bytes
        elif len(self._buffer) < self._head_bytes + self._body_bytes:
            return None
        return self._finish()

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > _MAX_HEAD_BYTES:
                raise MalformedRequestError("the head is too long")
            return False
        self._head_bytes = end + 4
        sink = _Sink()
        sink.feed(bytes(self._buffer[: self._head_bytes]))
        self._sink = sink
        chunked = sink.header(b"transfer-encoding").lower().endswith(b"chunked")
        self._chunks = _ChunkEnd(self._head_bytes) if chunked else None
        self._body_bytes = 0 if chunked else int(sink.header(b"content-length") or b"0")
        return True

    def _finish(self) -> RawRequest:
        sink = self._sink
        if sink is None:
            raise MalformedRequestError("no head was read")
        end = self._head_bytes + self._body_bytes
        head, raw_body = bytes(self._buffer[: self._head_bytes]), bytes(self._buffer[self._head_bytes : end])
        if raw_body:
            sink.feed(raw_body)
        del self._buffer[:end]
        self._sink = self._chunks = None
        target = sink.target.decode("latin-1")
        return RawRequest(
            method=sink.parser.get_method().decode("latin-1"),
            target=target,
            path=target.partition("?")[0],
            headers=tuple(sink.headers),
            head=head,
            raw_body=raw_body,
            body=bytes(sink.body),
            keep_alive=sink.keep_alive,
        )


class _Sink:
    """Receives what httptools finds in one request."""

    def __init__(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = bytearray()
        self.keep_alive = False
        self._in_head = True

    def feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            return
        except httptools.HttpParserError as error:
            raise MalformedRequestError(str(error)) from None

    def header(self, name: bytes) -> bytes:
        return next((value for key, value in self.headers if key.lower() == name), b"")

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.keep_alive = self.parser.should_keep_alive()
        self._in_head = False

    def on_body(self, data: bytes) -> None:
        self.body += data


class _ChunkEnd:
    """Finds where a chunked body ends, going on where it stopped when more bytes have come."""

    def __init__(self, start: int) -> None:
        self._position = start
        self._in_trailer = False

    def find(self, buffer: bytearray) -> int | None:
        while (line_end := buffer.find(b"\r\n", self._position)) >= 0:
            line = bytes(buffer[self._position : line_end])
            if self._in_trailer:
                self._position = line_end + 2
                if not line:
                    return self._position
                continue
            try:
                size = int(line.partition(b";")[0].strip(), 16)
            except ValueError:
                raise MalformedRequestError("a chunk without a size") from None
            if size == 0:
                self._in_trailer = True
                self._position = line_end + 2
                continue
            if len(buffer) < line_end + 2 + size + 2:
                return None
            self._position = line_end + 2 + size + 2
        return None
