"""A client that writes bytes as they stand and shows what came back: one TCP connection, no opinions about HTTP."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from tests.canaries import PROMPT

TIMEOUT_S = 30.0
# What the folder's gateway is started with; the defaults are 10 s and 30 s.
BODY_TIMEOUT_S = 2.0
WRITE_STALL_TIMEOUT_S = 2.0
# Far above what the tests of one minute fail with.
AUTH_FAILURES_PER_MINUTE = 1000
TRUSTED_PROXY = "127.0.0.7"
MODEL = "llama3.2"
MESSAGES = [{"role": "user", "content": PROMPT}]
CHAT: dict[str, Any] = {"model": MODEL, "stream": False, "messages": MESSAGES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One HTTP reply, framing removed. ``truncated`` says that the connection ended before the reply did."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    truncated: bool = False

    def header(self, name: str) -> str | None:
        """The value of a header that stands once; None where it is missing."""
        values = [value for found, value in self.headers if found == name]
        assert len(values) < 2, f"{name} stands {len(values)} times"
        return values[0] if values else None

    @property
    def closes(self) -> bool:
        """Whether the reply announces the end of its connection."""
        return self.header("connection") == "close"

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """One connection. ``send`` and ``answer`` as often as a test likes; leaving the block closes it."""

    def __init__(
        self, url: str, *, timeout_s: float = TIMEOUT_S, receive_buffer_bytes: int | None = None, source: str = ""
    ) -> None:
        address = urlsplit(url)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if source:
            self._socket.bind((source, 0))
        if receive_buffer_bytes is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self._socket.settimeout(timeout_s)
        self._socket.connect((address.hostname, address.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""
        self._pause_s = 0.0
        # Whether the server has ended the connection with RST.
        self.was_reset = False

    @property
    def port(self) -> int:
        """The client's own port."""
        port: int = self._socket.getsockname()[1]
        return port

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def reset(self) -> None:
        """Ends the connection with RST."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def half_close(self) -> None:
        """Says that nothing more will be sent."""
        self._socket.shutdown(socket.SHUT_WR)

    def send(self, data: bytes) -> Self:
        self._socket.sendall(data)
        return self

    def offer(self, data: bytes) -> Self:
        """Sends what the server may refuse to read: a connection that it has closed is no failure here."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(data)
        return self

    def answer(self, *, to_head: bool = False, pause_s: float = 0) -> Answer | None:
        """The next reply, an interim one (100) included; None when the connection ends before it.

        ``pause_s`` is the rest before each read.
        """
        self._pause_s = pause_s
        head = self._until(b"\r\n\r\n")
        if head is None:
            return None
        start, *lines = head.decode("latin-1").split("\r\n")
        fields = tuple((name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines))
        status = int(start.split()[1])
        headers = dict(fields)
        if to_head or status in (100, 204, 304):
            return Answer(status=status, headers=fields, body=b"")
        if headers.get("transfer-encoding") == "chunked":
            body, whole = self._chunks()
        elif "content-length" in headers:
            body, whole = self._exactly(int(headers["content-length"]))
        else:
            body, whole = self.rest(), True
        return Answer(status=status, headers=fields, body=body, truncated=not whole)

    def rest(self) -> bytes:
        """Everything until the server ends the connection. Raises ``TimeoutError`` if it does not."""
        while self._more():
            pass
        rest, self._received = self._received, b""
        return rest

    def closed_within(self, timeout_s: float) -> bool:
        """Whether the server ends the connection in this time, without another byte."""
        self._socket.settimeout(timeout_s)
        try:
            return self.rest() == b""
        except TimeoutError:
            return False
        finally:
            self._socket.settimeout(TIMEOUT_S)

    def is_silent_for(self, quiet_s: float) -> bool:
        """Whether nothing comes in this time and the connection stays."""
        self._socket.settimeout(quiet_s)
        try:
            return not self._received and not self._more() and False
        except TimeoutError:
            return True
        finally:
            self._socket.settimeout(TIMEOUT_S)

    def _more(self) -> bool:
        time.sleep(self._pause_s)
        try:
            data = self._socket.recv(65_536)
        except ConnectionResetError:
            self.was_reset = True
            return False
        self._received += data
        return bool(data)

    def _until(self, mark: bytes) -> bytes | None:
        while mark not in self._received:
            if not self._more():
                return None
        found, _, self._received = self._received.partition(mark)
        return found

    def _exactly(self, size: int) -> tuple[bytes, bool]:
        while len(self._received) < size:
            if not self._more():
                break
        found, self._received = self._received[:size], self._received[size:]
        return found, len(found) == size

    def _chunks(self) -> tuple[bytes, bool]:
        parts: list[bytes] = []
        while True:
            line = self._until(b"\r\n")
            if line is None:
                return b"".join(parts), False
            part, whole = self._exactly(int(line, 16) + 2)
            parts.append(part[:-2])
            if not whole or line == b"0":
                return b"".join(parts), whole


def request(
    api_key: str | None,
    *fields: bytes,
    start: bytes = b"POST /api/chat HTTP/1.1",
    host: bytes | None = b"gateway.test",
    content_type: bytes | None = b"application/json",
    body: bytes | None = None,
) -> bytes:
    """A request's bytes. A body that is given gets its Content-Length; ``fields`` are whole lines, as they stand."""
    lines = [start]
    if host is not None:
        lines.append(b"Host: " + host)
    if api_key is not None:
        lines.append(b"Authorization: Bearer " + api_key.encode())
    if content_type is not None:
        lines.append(b"Content-Type: " + content_type)
    if body is not None:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, *fields, b"", b""]) + (body or b"")


def chat_body(size: int | None = None) -> bytes:
    """A chat that is served; of exactly ``size`` bytes where that is given."""
    body = json.dumps(CHAT).encode()
    return body if size is None else body.replace(PROMPT.encode(), b"a" * (size - len(body) + len(PROMPT)))


def chunked(*parts: bytes) -> bytes:
    """The parts as a chunked body with its end."""
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def ask(url: str, data: bytes) -> Answer:
    """The first reply to these bytes, on a connection of their own."""
    with Wire(url) as wire:
        answer = wire.send(data).answer()
        assert answer is not None, "the connection ended without a reply"
        return answer


def answers(url: str, data: bytes) -> list[Answer]:
    """Every reply to these bytes until the server ends the connection."""
    found: list[Answer] = []
    with Wire(url) as wire:
        wire.offer(data)
        while (answer := wire.answer()) is not None:
            found.append(answer)
    return found
