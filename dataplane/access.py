"""The request log: one JSON line for each request, written in batches by a thread of its own.

A line holds what the audit holds of a request, without what was asked or answered: ids, tenant, key prefix, model,
outcome, tokens and durations. All its words are ours or an operator's, and the encoder escapes them, so no client can
forge a line. A reader of our output that stalls costs lines and never a request: what does not fit is counted, and the
count is logged once there is room again.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol

import msgspec

from dataplane.ports import Observer
from dataplane.values import Arrival, Principal
from shared import logs
from shared.output import PIECE_BYTES, Output
from shared.records import UsageEvent

EVENT = "request_ended"
FLUSH_PERIOD_S = 0.2
MAX_WAITING = 20_000
# How long a reader may take nothing before lines are given up: while the worker runs, and when it ends.
PATIENCE_S = 2.0
LAST_PATIENCE_S = 0.5
_STDOUT = 1

_encode_lines = msgspec.json.Encoder().encode_lines
_log = logs.get(__name__)


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one line says; what is not known is left out."""

    timestamp: str
    request_id: str
    dialect: str
    endpoint: str
    status: int
    client_ip: str
    duration_ms: float
    plane: str = ""
    event: str = ""
    level: str = ""
    pid: int = 0
    outcome: str = ""
    tenant: str = ""
    key_prefix: str = ""
    model: str = ""
    backend: str = ""
    refusal: str = ""
    provenance: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    ttft_ms: int | None = None


class RequestLog(Protocol):
    """Where lines go."""

    def request_ended(
        self, *, arrival: Arrival, principal: Principal | None, event: UsageEvent | None, status: int, duration_s: float
    ) -> None:
        """See ``ports.Observer``."""
        ...

    async def run(self) -> None:
        """Writes until it is cancelled, and then what is left."""
        ...


class JSONLines:
    """Lines as JSON on stdout, or on another descriptor."""

    def __init__(self, *, descriptor: int = _STDOUT) -> None:
        self._output = Output(descriptor)
        self._waiting: list[Line] = []
        self._lost = 0
        self._pid = os.getpid()

    def request_ended(
        self, *, arrival: Arrival, principal: Principal | None, event: UsageEvent | None, status: int, duration_s: float
    ) -> None:
        """Takes one line. Returns at once and never raises."""
        if len(self._waiting) >= MAX_WAITING:
            self._lost += 1
            return
        self._waiting.append(line_of(arrival, principal, event, status=status, duration_s=duration_s, pid=self._pid))

    async def run(self) -> None:
        """Writes until it is cancelled, and then what is left."""
        try:
            while True:
                await asyncio.sleep(FLUSH_PERIOD_S)
                await self._flush()
        finally:
            self._write(self._taken(), LAST_PATIENCE_S)

    async def _flush(self) -> None:
        if lines := self._taken():
            self._lost += await asyncio.to_thread(self._write, lines, PATIENCE_S)
        if self._lost:
            lost, self._lost = self._lost, 0
            _log.warning("request_lines_lost", count=lost)

    def _taken(self) -> list[Line]:
        lines, self._waiting = self._waiting, []
        return lines

    def _write(self, lines: Sequence[Line], patience_s: float) -> int:
        """How many could not be written. In pieces that reach a pipe whole, beside those of other workers."""
        raw, start = _encode_lines(lines), 0
        while start < len(raw):
            end = start + PIECE_BYTES
            if end < len(raw):
                # At the last line that fits; a longer one goes alone.
                end = raw.rfind(b"\n", start, end) + 1 or raw.index(b"\n", start) + 1
            if not self._output.write(raw[start:end], patience_s=patience_s):
                return raw.count(b"\n", start)
            start = end
        return 0

    def __repr__(self) -> str:
        return f"JSONLines(waiting={len(self._waiting)}, lost={self._lost})"


class ConsoleLines:
    """Lines for a person: the same fields through the log of the process."""

    def request_ended(
        self, *, arrival: Arrival, principal: Principal | None, event: UsageEvent | None, status: int, duration_s: float
    ) -> None:
        """Logs one line."""
        line = line_of(arrival, principal, event, status=status, duration_s=duration_s, pid=0)
        fields = msgspec.to_builtins(line)
        for constant in ("plane", "event", "level", "timestamp"):
            fields.pop(constant, None)
        _log.info(EVENT, **fields)

    async def run(self) -> None:
        """Nothing waits here."""

    def __repr__(self) -> str:
        return "ConsoleLines()"


class NoLines:
    """No request log: its level is not wanted."""

    def request_ended(
        self, *, arrival: Arrival, principal: Principal | None, event: UsageEvent | None, status: int, duration_s: float
    ) -> None:
        """Nothing."""

    async def run(self) -> None:
        """Nothing."""

    def __repr__(self) -> str:
        return "NoLines()"


class Observers:
    """Implements ``ports.Observer`` for several together."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def request_ended(
        self, *, arrival: Arrival, principal: Principal | None, event: UsageEvent | None, status: int, duration_s: float
    ) -> None:
        """See ``ports.Observer``."""
        for observer in self._observers:
            observer.request_ended(
                arrival=arrival, principal=principal, event=event, status=status, duration_s=duration_s
            )

    def __repr__(self) -> str:
        return f"Observers{self._observers!r}"


def request_log(*, level: str, style: str) -> RequestLog:
    """The request log that goes with the settings of the log: lines are of level ``info``."""
    if level not in ("debug", "info"):
        return NoLines()
    return JSONLines() if style == "json" else ConsoleLines()


def line_of(
    arrival: Arrival,
    principal: Principal | None,
    event: UsageEvent | None,
    *,
    status: int,
    duration_s: float,
    pid: int,
) -> Line:
    """The line of a request that ended now."""
    return Line(
        timestamp=_timestamp(arrival.created_at_ms / 1000 + duration_s),
        request_id=arrival.request_id,
        dialect=arrival.dialect,
        endpoint=arrival.endpoint,
        status=status,
        client_ip=arrival.client_ip,
        duration_ms=round(duration_s * 1000, 3),
        plane="dataplane",
        event=EVENT,
        level="info",
        pid=pid,
        outcome="refused" if event is None else event.outcome,
        tenant="" if principal is None else principal.tenant_name,
        key_prefix="" if principal is None else principal.key_prefix,
        model="" if event is None else event.model,
        backend="" if event is None else event.backend,
        refusal="" if event is None else event.refusal,
        provenance=event.provenance if event is not None and event.model else "",
        prompt_tokens=event.prompt_tokens if event is not None and event.model else None,
        completion_tokens=event.completion_tokens if event is not None and event.model else None,
        ttft_ms=None if event is None else event.ttft_ms,
    )


def _timestamp(unix_s: float) -> str:
    seconds, microseconds = divmod(round(unix_s * 1_000_000), 1_000_000)
    return f"{_second(seconds)}.{microseconds:06d}Z"


# Requests of one second share it.
@functools.lru_cache(maxsize=8)
def _second(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")
