"""A running mock, and a client that sees bytes."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from deploy.mock_ollama import MockOllama

CHAT: dict[str, Any] = {"model": "llama3.2", "messages": [{"role": "user", "content": "hello"}]}


@dataclass(frozen=True)
class Seen:
    """What came back on a raw connection, and how it ended: "eof", "reset" or "open" (nothing more came)."""

    data: bytes
    ending: str

    @property
    def head(self) -> bytes:
        return self.data.partition(b"\r\n\r\n")[0]

    @property
    def body(self) -> bytes:
        return self.data.partition(b"\r\n\r\n")[2]

    @property
    def status(self) -> int:
        return int(self.data.split(b" ", 2)[1])

    @property
    def is_chunked_to_the_end(self) -> bool:
        return self.body.endswith(b"0\r\n\r\n")

    @property
    def records(self) -> list[bytes]:
        found, rest = [], self.body
        while b"\r\n" in rest:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size, 16)
            if length == 0:
                break
            found.append(rest[:length])
            rest = rest[length + 2 :]
        return found


async def connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(url)
    return await asyncio.open_connection(parts.hostname, parts.port, limit=1 << 26)


def request_bytes(body: object, *, path: str = "/api/chat", method: str = "POST", headers: str = "") -> bytes:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}Content-Length: {len(raw)}\r\n\r\n".encode() + raw


async def exchange(url: str, sent: bytes, *, quiet_s: float = 1.0) -> Seen:
    """Send bytes and read until the connection ends, the reply is whole, or nothing has come for `quiet_s`."""
    reader, writer = await connect(url)
    writer.write(sent)
    data, ending = b"", "open"
    try:
        while True:
            async with asyncio.timeout(quiet_s):
                part = await reader.read(1 << 20)
            if not part:
                ending = "eof"
                break
            data += part
    except TimeoutError:
        ending = "open"
    except ConnectionResetError:
        ending = "reset"
    writer.transport.abort()
    return Seen(data, ending)


async def chat(mock: MockOllama, **more: object) -> Seen:
    """One chat request that asks for the connection to be closed after the reply."""
    return await exchange(mock.url, request_bytes({**CHAT, **more}, headers="Connection: close\r\n"))


@pytest.fixture
async def mock() -> AsyncIterator[MockOllama]:
    async with MockOllama(name="A") as running:
        yield running


@pytest.fixture
async def client(mock: MockOllama) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=mock.url, timeout=30) as opened:
        yield opened


@pytest.fixture
async def control(mock: MockOllama) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=mock.control_url, timeout=30) as opened:
        yield opened
