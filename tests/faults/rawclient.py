"""A client that sees bytes: how a reply is framed, whether it was ended or cut, and whether anything follows it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

ANSWER_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One reply. `was_ended`: its framing came to a proper end; else the connection was closed within it."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    was_ended: bool
    # Everything that came, framing included.
    wire: bytes

    def header(self, name: str) -> str | None:
        """The one value of a header, None without it."""
        values = [value for key, value in self.headers if key.lower() == name]
        if len(values) > 1:
            raise AssertionError(f"{name} came {len(values)} times")
        return values[0] if values else None

    @property
    def request_id(self) -> str:
        return self.header("x-request-id") or ""


class RawClient:
    """Asks one request after the other on a kept connection, so that a byte too many spoils the next reply."""

    def __init__(self, url: str, api_key: str) -> None:
        self._address = urlsplit(url)
        self._key = api_key
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, path: str, body: dict[str, Any]) -> Seen:
        """One request and everything that comes for it. Raises what a malformed reply makes of its reading."""
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            if self._streams is None:
                self._streams = await asyncio.open_connection(self._address.hostname, self._address.port)
            reader, writer = self._streams
            content = json.dumps(body).encode()
            writer.write(
                f"POST {path} HTTP/1.1\r\nHost: {self._address.netloc}\r\nAuthorization: Bearer {self._key}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n".encode()
                + content
            )
            seen = await _read(reader)
        if not seen.was_ended or (seen.header("connection") or "").lower() == "close":
            if await reader.read():
                raise AssertionError("bytes after the end of a reply")
            self.close()
        return seen

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _read(reader: asyncio.StreamReader) -> Seen:
    head = await reader.readuntil(b"\r\n\r\n")
    start, *lines = head.decode("latin-1").split("\r\n")[:-2]
    version, status, _ = start.split(" ", 2)
    if version != "HTTP/1.1":
        raise AssertionError(f"the reply begins with {start!r}")
    headers = tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in lines))
    chunked = any(name.lower() == "transfer-encoding" for name, _ in headers)
    wire = bytearray(head)
    if chunked:
        body, was_ended = await _chunks(reader, wire)
    else:
        length = next(int(value) for name, value in headers if name.lower() == "content-length")
        body, was_ended = await reader.readexactly(length), True
        wire += body
    return Seen(status=int(status), headers=headers, body=body, was_ended=was_ended, wire=bytes(wire))


async def _chunks(reader: asyncio.StreamReader, wire: bytearray) -> tuple[bytes, bool]:
    """The body, and whether its last chunk came; an end in the middle of a chunk is no end that a gateway makes."""
    body = bytearray()
    while line := await reader.readline():
        size = int(line, 16)
        chunk = await reader.readexactly(size + 2)
        wire += line + chunk
        if chunk[-2:] != b"\r\n":
            raise AssertionError("a chunk without its end")
        if size == 0:
            return bytes(body), True
        body += chunk[:-2]
    return bytes(body), False
