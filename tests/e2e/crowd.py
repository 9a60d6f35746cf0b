"""Many clients at once: raw HTTP/1.1 over asyncio, one kept connection each, and every answer with its moments."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

CHAT = "/api/chat"
ANSWER_TIMEOUT_S = 60.0
_BROKEN = (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a client got. Status 0 means that the connection broke; times are CLOCK_MONOTONIC, as the mock's are."""

    status: int
    headers: dict[str, str]
    body: bytes
    asked_at_s: float
    answered_at_s: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def took_s(self) -> float:
        return self.answered_at_s - self.asked_at_s

    @property
    def request_id(self) -> str:
        return self.headers.get("x-request-id", "")

    @property
    def retry_after_s(self) -> int:
        return int(self.headers["retry-after"])

    @property
    def code(self) -> str:
        """The machine code of a refusal in Ollama's dialect."""
        return str(self.json["code"]) if self.status >= 400 else ""

    @property
    def tokens(self) -> int:
        """What a native reply says that it cost."""
        return int(self.json.get("prompt_eval_count", 0)) + int(self.json.get("eval_count", 0))


def chat(number: int = 0, *, num_predict: int | None = None, model: str = "llama3.2", text: str = "") -> dict[str, Any]:
    """A chat whose message tells its number."""
    body: dict[str, Any] = {
        "model": model,
        "stream": False,
        "messages": [{"role": "user", "content": text or f"number-{number}"}],
    }
    return body if num_predict is None else {**body, "options": {"num_predict": num_predict}}


class Client:
    """One client with one key on one replica; its connection is kept, and made anew when it broke."""

    def __init__(self, url: str, api_key: str) -> None:
        self._address = urlsplit(url)
        self._key = api_key
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, body: dict[str, Any], path: str = CHAT) -> Answer:
        """One request and its whole answer; a connection that breaks is an answer of status 0."""
        asked_at_s = time.monotonic()
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                status, headers, content = await self._ask(path, json.dumps(body).encode())
        except _BROKEN:
            self.close()
            status, headers, content = 0, {}, b""
        return Answer(
            status=status, headers=headers, body=content, asked_at_s=asked_at_s, answered_at_s=time.monotonic()
        )

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _ask(self, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._address.hostname, self._address.port)
        reader, writer = self._streams
        writer.write(
            f"POST {path} HTTP/1.1\r\nHost: {self._address.netloc}\r\nAuthorization: Bearer {self._key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        start, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        content = await _content(reader, headers)
        if headers.get("connection", "").lower() == "close":
            self.close()
        return int(start.split()[1]), headers, content


async def _content(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding") != "chunked":
        return await reader.readexactly(int(headers.get("content-length", "0")))
    parts = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readexactly(2)
    return b"".join(parts)


def ask_all(urls: Sequence[str], api_key: str, bodies: Sequence[dict[str, Any]], path: str = CHAT) -> list[Answer]:
    """All bodies at once, each by a client of its own, spread over the replicas. Not for use inside an event loop."""

    async def one(number: int, body: dict[str, Any]) -> Answer:
        client = Client(urls[number % len(urls)], api_key)
        try:
            return await client.ask(body, path)
        finally:
            client.close()

    async def all_of_them() -> list[Answer]:
        return await asyncio.gather(*(one(number, body) for number, body in enumerate(bodies)))

    return asyncio.run(all_of_them())


class Traffic:
    """Clients that ask again and again in the background, from the start of the block to its end.

    Each rests ``rest_s`` between an answer and its next request. ``body`` makes the request of a number.
    """

    def __init__(
        self,
        urls: Sequence[str],
        api_key: str,
        *,
        clients: int,
        rest_s: float,
        body: Callable[[int], dict[str, Any]] = chat,
    ) -> None:
        self._clients = [Client(urls[number % len(urls)], api_key) for number in range(clients)]
        self._rest_s = rest_s
        self._body = body
        self._next = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._numbered: list[tuple[int, Answer]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def answers(self) -> list[Answer]:
        """Everything that was answered until now."""
        return [answer for _, answer in tuple(self._numbered)]

    @property
    def numbered(self) -> dict[int, Answer]:
        """The answers by the number of their request."""
        return dict(tuple(self._numbered))

    def between(self, start_s: float, end_s: float) -> list[Answer]:
        """Answers to what was asked in this time."""
        return [answer for answer in self.answers if start_s <= answer.asked_at_s <= end_s]

    def stop(self) -> None:
        """Lets every client finish its request, then ends."""
        self._stopping.set()
        self._thread.join()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number, client in enumerate(self._clients):
                group.create_task(self._keep_asking(client, number / len(self._clients)))

    async def _keep_asking(self, client: Client, offset: float) -> None:
        await asyncio.sleep(self._rest_s * offset)
        while not self._stopping.is_set():
            number, self._next = self._next, self._next + 1
            self._numbered.append((number, await client.ask(self._body(number))))
            await asyncio.sleep(self._rest_s)
        client.close()
