"""An open stream whose end is timed."""

from __future__ import annotations

import asyncio
import json
import time
from urllib.parse import urlsplit

_BODY = {"model": "llama3.2", "messages": [{"role": "user", "content": "Tell me everything."}], "stream": True}


class Stream:
    """One streaming chat; ``run`` returns at its end. Raises ``RuntimeError`` when it does not begin."""

    def __init__(self, url: str, api_key: str) -> None:
        self._address = urlsplit(url)
        self._key = api_key
        self.started = asyncio.Event()
        self.ended = asyncio.Event()
        # On CLOCK_MONOTONIC.
        self.ended_at_s = 0.0

    async def run(self) -> None:
        """Reads until the server ends it."""
        reader, writer = await asyncio.open_connection(self._address.hostname, self._address.port)
        body = json.dumps(_BODY).encode()
        writer.write(
            f"POST /api/chat HTTP/1.1\r\nHost: {self._address.netloc}\r\nAuthorization: Bearer {self._key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in head.split(b"\r\n", 1)[0]:
                raise RuntimeError(f"the stream was refused: {head[:60]!r}")
            while piece := await reader.read(65536):
                # The error event is what a client sees; the connection ends right after it.
                if b'"error"' in piece:
                    break
                self.started.set()
        except OSError:
            # Cut: an end like any other.
            pass
        finally:
            self.ended_at_s = time.monotonic()
            self.ended.set()
            self.started.set()
            writer.close()
