"""Asking a backend for ``/api/tags``, ``/api/show`` and ``/api/status``, with the headers that requests carry.

A backend is not trusted: every answer has a deadline and a cap, is read as it comes, must not be encoded or redirect,
and is judged by ``controlplane.ollama.answers``. The environment's proxies and credentials are ignored.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any, Self

import httpx
import msgspec

from controlplane.errors import UpstreamProbeError
from controlplane.ollama import answers
from controlplane.ollama.answers import AnswerError, Details, Listing
from shared.backends import credential_header
from shared.records import BackendRecord
from shared.sealing import Sealer

TAGS_TIMEOUT_S = 2.0
SHOW_TIMEOUT_S = 2.0
STATUS_TIMEOUT_S = 2.0
MAX_STATUS_BYTES = 64 * 1024
MAX_TAGS_BYTES = 1024 * 1024
MAX_SHOW_BYTES = 4 * 1024 * 1024

_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "neuronetz-gateway"}
_UNAUTHORIZED = (401, 403)


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A backend as a question needs it."""

    name: str
    # ``http://host:port`` without a trailing slash.
    url: str
    # The credential's header, ready to send; None without a credential.
    credential: tuple[str, str] | None = None

    @classmethod
    def of(cls, record: BackendRecord, sealer: Sealer) -> Self:
        """The target of a published backend. Raises ``SealError`` when its token was sealed with another key."""
        token = sealer.open(record.name, record.sealed_token) if record.sealed_token is not None else None
        credential = credential_header(header=record.header, scheme=record.scheme, token=token)
        return cls(name=record.name, url=record.url, credential=credential)

    def __repr__(self) -> str:
        return f"Target(name={self.name!r})"


class OllamaClient:
    """Asks backends. Holds no connection: each question has its own, so a cancelled one can leave nothing behind."""

    def __init__(self) -> None:
        # Loading the certificates is the slow part of a client, so it is done once.
        self._tls = httpx.create_ssl_context(trust_env=False)

    async def tags(self, target: Target, *, timeout_s: float = TAGS_TIMEOUT_S) -> Listing:
        """The models of a backend; raises ``UpstreamProbeError``."""
        raw = await self._ask(target, "GET", "/api/tags", None, timeout_s=timeout_s, max_bytes=MAX_TAGS_BYTES)
        try:
            return answers.listing(raw)
        except AnswerError as fault:
            raise UpstreamProbeError(str(fault)) from fault

    async def show(self, target: Target, model: str, *, timeout_s: float = SHOW_TIMEOUT_S) -> Details:
        """What a backend knows of one model, spelled as the backend spells it; raises ``UpstreamProbeError``."""
        body = {"model": model}
        raw = await self._ask(target, "POST", "/api/show", body, timeout_s=timeout_s, max_bytes=MAX_SHOW_BYTES)
        try:
            return answers.details(raw)
        except AnswerError as fault:
            raise UpstreamProbeError(str(fault)) from fault

    async def is_cloud_disabled(self, target: Target, *, timeout_s: float = STATUS_TIMEOUT_S) -> bool:
        """Whether a backend says that it sends nothing to Ollama's cloud; raises ``UpstreamProbeError``."""
        raw = await self._ask(target, "GET", "/api/status", None, timeout_s=timeout_s, max_bytes=MAX_STATUS_BYTES)
        try:
            return answers.is_cloud_disabled(raw)
        except AnswerError as fault:
            raise UpstreamProbeError(str(fault)) from fault

    async def _ask(
        self, target: Target, method: str, path: str, body: Any, *, timeout_s: float, max_bytes: int
    ) -> bytes:
        headers = dict([target.credential]) if target.credential else {}
        # Connecting ends by itself before the deadline: httpcore leaves the socket open when TLS is cancelled.
        timeouts = {"timeout": {"connect": timeout_s / 2}}
        request = httpx.Request(method, target.url + path, headers=_HEADERS | headers, json=body, extensions=timeouts)
        try:
            # The deadline covers all of the question; a read timeout of httpx would start anew with every byte.
            async with asyncio.timeout(timeout_s), httpx.AsyncHTTPTransport(verify=self._tls, trust_env=False) as http:
                reply = await http.handle_async_request(request)
                _check_head(reply, max_bytes)
                return await _bounded(reply, max_bytes)
        except TimeoutError as fault:
            raise UpstreamProbeError("timeout") from fault
        except httpx.TransportError as fault:
            raise UpstreamProbeError(_problem_of(fault)) from fault

    def __repr__(self) -> str:
        return "OllamaClient()"


def _check_head(reply: httpx.Response, max_bytes: int) -> None:
    if 300 <= reply.status_code < 400:
        raise UpstreamProbeError("redirect")
    if reply.status_code in _UNAUTHORIZED:
        raise UpstreamProbeError("unauthorized")
    if reply.status_code != httpx.codes.OK:
        raise UpstreamProbeError(f"status {reply.status_code}")
    if reply.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise UpstreamProbeError("encoded reply")
    length = reply.headers.get("content-length", "")
    if length.isdecimal() and int(length) > max_bytes:
        raise UpstreamProbeError("too large")


async def _bounded(reply: httpx.Response, max_bytes: int) -> bytes:
    body = bytearray()
    async for piece in reply.aiter_raw():
        body += piece
        if len(body) > max_bytes:
            raise UpstreamProbeError("too large")
    return bytes(body)


def _problem_of(fault: httpx.TransportError) -> str:
    if isinstance(fault, httpx.TimeoutException):
        return "timeout"
    causes = _causes(fault)
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return "unknown host"
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return "TLS failed"
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return "connection refused"
    if isinstance(fault, httpx.ConnectError):
        return "connection failed"
    if isinstance(fault, httpx.ProtocolError | httpx.UnsupportedProtocol):
        return "broken reply"
    return "connection lost"


def _causes(fault: BaseException) -> list[BaseException]:
    """The exceptions below one, also those in groups: connecting tries several addresses at once."""
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [fault]
    while waiting:
        current = waiting.pop()
        if current is None or current in found:
            continue
        found.append(current)
        waiting += [current.__cause__, current.__context__]
        if isinstance(current, BaseExceptionGroup):
            waiting += current.exceptions
    return found
