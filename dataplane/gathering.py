"""One scrape address for all workers of a replica: each worker answers its supervisor, which adds up.

Workers are processes. Each listens on a Unix socket of its own in a folder that only this user can enter, named after
its supervisor and itself, and tells its figures to whoever connects. The supervisor serves no clients: a scrape costs
the workers a copy of their numbers and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from dataplane.figures import Figure, families, merged
from shared import logs

# A worker that takes longer counts with what it said last.
ANSWER_TIMEOUT_S = 1.0
WORKERS = "gateway_workers"
_READ_BYTES = 65536
# Names with a dot are of OpenTelemetry's conventions, which Prometheus does not know.
_OTLP_ONLY = "."

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Figure]).decode
_log = logs.get(__name__)


@contextlib.asynccontextmanager
async def answering(folder: str | None, figures: Callable[[], list[Figure]]) -> AsyncIterator[None]:
    """Answers the supervisor inside the block, in the worker. Without a folder nobody can ask."""
    if folder is None:
        yield
        return

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A supervisor that went away meanwhile does not care.
        with contextlib.suppress(OSError):
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                writer.write(_encode(figures()))
                await writer.drain()
        writer.close()

    path = Path(folder) / f"{os.getppid()}-{os.getpid()}.sock"
    server = await asyncio.start_unix_server(answer, path)
    try:
        yield
    finally:
        server.close()
        path.unlink(missing_ok=True)


class Workers:
    """The workers of this process, seen from their supervisor; any thread may ask.

    Make it before they start: the folder is made, and what an earlier process with the same id left there is removed.
    """

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left_over in self._sockets():
            left_over.unlink()
        self._turn = threading.Lock()
        self._last: dict[Path, list[Figure]] = {}

    def figures(self) -> list[Figure]:
        """What all workers have counted together; asks each of them."""
        with self._turn:
            return self._figures()

    def _figures(self) -> list[Figure]:
        # One that does not answer now counts with what it has counted before, without its gauges: a counter that fell
        # and rose again would look like a burst of requests.
        asked = {path: _asked(path) for path in self._sockets()}
        answered = {path: figures for path, figures in asked.items() if figures is not None}
        silent = [
            [figure for figure in figures if figure.kind != "gauge"]
            for path, figures in self._last.items()
            if path not in answered
        ]
        self._last |= answered
        known = Figure(name=WORKERS, help="Workers that answer", kind="gauge", series=[((), [float(len(answered))])])
        return [known, *merged([*answered.values(), *silent])]

    def _sockets(self) -> list[Path]:
        return [*self._folder.glob(f"{os.getpid()}-*.sock")]

    def registry(self) -> CollectorRegistry:
        """What a scrape shows."""
        registry = CollectorRegistry()
        registry.register(_Scraped(self))
        return registry

    def __repr__(self) -> str:
        return f"Workers({self._folder})"


class _Scraped(Collector):
    def __init__(self, workers: Workers) -> None:
        self._workers = workers

    def collect(self) -> Iterator[Metric]:
        """The sums over all workers."""
        return families(figure for figure in self._workers.figures() if _OTLP_ONLY not in figure.name)

    def describe(self) -> Iterator[Metric]:
        """Nothing: the names are known when workers answer."""
        yield GaugeMetricFamily(WORKERS, "Workers that answer")


def _asked(path: Path) -> list[Figure] | None:
    raw = bytearray()
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ANSWER_TIMEOUT_S)
            connection.connect(str(path))
            while chunk := connection.recv(_READ_BYTES):
                raw += chunk
        return _decode(raw)
    except (OSError, msgspec.DecodeError) as fault:
        _log.warning("worker_did_not_answer", socket=path.name, reason=repr(fault))
        return None
