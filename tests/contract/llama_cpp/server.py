"""A running llama.cpp server: started as a process of its own, ended by its id."""

from __future__ import annotations

import selectors
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.contract.llama_cpp.frames import Reply, read_reply
from tests.contract.llama_cpp.tiny import MODEL

_START_TIMEOUT_S = 30
_REPLY_TIMEOUT_S = 30
_STOP_TIMEOUT_S = 10


class LlamaCpp:
    """The server, for as long as the ``with`` block lasts. Raises RuntimeError when it does not start."""

    def __init__(self, folder: Path, root: Path) -> None:
        self._folder = folder
        self._root = root
        self._log = folder / "llama_cpp.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._url = ""

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.contract.llama_cpp", str(self._folder)],
                cwd=self._root,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        try:
            self._url = self._address(self._process)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def get(self, path: str) -> Reply:
        """The reply to a GET."""
        return self._reply("GET", path, None)

    def post(self, path: str, body: dict[str, Any]) -> Reply:
        """The reply to a POST of this JSON; the model is named here."""
        return self._reply("POST", path, {"model": MODEL, **body})

    def _reply(self, method: str, path: str, body: dict[str, Any] | None) -> Reply:
        # A connection per request: after a stream the server closes the connection without having said so.
        response = httpx.request(method, self._url + path, json=body, timeout=_REPLY_TIMEOUT_S, trust_env=False)
        return read_reply(response.status_code, response.headers["content-type"], response.content)

    def _address(self, process: subprocess.Popen[bytes]) -> str:
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            line = process.stdout.readline() if selector.select(_START_TIMEOUT_S) else b""
        if not line.startswith(b"http://"):
            raise RuntimeError(f"llama.cpp's server did not start: {self._log.read_text(errors='replace')[-2000:]}")
        return line.decode().strip()

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.communicate(timeout=_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()

    def __repr__(self) -> str:
        return f"LlamaCpp(url={self._url!r})"
