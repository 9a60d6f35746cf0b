"""One request and what a client heard of it, to its end or until it leaves: in both dialects, whole and as a stream."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

PATHS = {"ollama": "/api/chat", "openai": "/v1/chat/completions"}
TIMEOUT_S = 45.0

type End = Literal["whole", "broken", "left"]


@dataclass(slots=True)
class Heard:
    """What came, as far as it came. Status 0: not even a head. ``is_done``: a stream said that it was complete."""

    status: int = 0
    request_id: str = ""
    body: bytearray = field(default_factory=bytearray)
    end: End = "broken"

    @property
    def said(self) -> str:
        """The text of all records that are complete."""
        return "".join(_text_of(record) for record in self._records())

    @property
    def is_done(self) -> bool:
        """Whether the last event says that the reply is complete."""
        if self.body.rstrip().endswith(b"data: [DONE]"):
            return True
        last = list(self._records())[-1:]
        return any(record.get("done") is True or record.get("object") == "chat.completion" for record in last)

    @property
    def errors(self) -> int:
        """How many error events there are."""
        return sum("error" in record for record in self._records())

    def _records(self) -> Iterator[dict[str, Any]]:
        for line in bytes(self.body).splitlines():
            with contextlib.suppress(ValueError):
                record = json.loads(line.removeprefix(b"data: "))
                if isinstance(record, dict):
                    yield record


def _text_of(record: dict[str, Any]) -> str:
    if "message" in record:
        return str(record["message"].get("content", ""))
    choices = record.get("choices") or [{}]
    return str((choices[0].get("message") or choices[0].get("delta") or {}).get("content") or "")


def body_of(dialect: str, text: str, *, model: str, stream: bool, num_predict: int) -> dict[str, Any]:
    """The request in its dialect."""
    body: dict[str, Any] = {"model": model, "stream": stream, "messages": [{"role": "user", "content": text}]}
    limit = {"options": {"num_predict": num_predict}} if dialect == "ollama" else {"max_tokens": num_predict}
    return {**body, **limit}


async def converse(
    url: str, api_key: str, dialect: str, body: dict[str, Any], *, leaves_after_s: float | None
) -> Heard:
    """Asks on a connection of its own and listens; after ``leaves_after_s`` it goes away without a word."""
    heard = Heard()
    try:
        async with asyncio.timeout(leaves_after_s if leaves_after_s is not None else TIMEOUT_S):
            await _ask(url, api_key, PATHS[dialect], json.dumps(body).encode(), heard)
    except TimeoutError:
        heard.end = "left"
    except (OSError, asyncio.IncompleteReadError, ValueError):
        heard.end = "broken"
    return heard


async def _ask(url: str, api_key: str, path: str, body: bytes, heard: Heard) -> None:
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writer.write(
            f"POST {path} HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {api_key}\r\n"
            f"Connection: close\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        start, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        heard.status, heard.request_id = int(start.split()[1]), headers.get("x-request-id", "")
        if headers.get("transfer-encoding") == "chunked":
            while size := int(await reader.readuntil(b"\r\n"), 16):
                heard.body += await reader.readexactly(size)
                await reader.readexactly(2)
        else:
            heard.body += await reader.readexactly(int(headers.get("content-length", "0")))
        heard.end = "whole"
    finally:
        writer.close()
