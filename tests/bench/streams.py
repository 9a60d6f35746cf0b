"""What open streams cost a worker that have nothing to say: memory by stream, and CPU while they are merely open."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

from tests.bench import processes
from tests.bench.cases import NATIVE_PATH
from tests.bench.fast_replies import OPEN
from tests.bench.load import LoadError, Request
from tests.bench.targets import DATA_PLANE, REDIS, Target

# In the worker each takes a descriptor of the client and one of the backend; some are for everything else.
_PER_STREAM, _OTHERS = 2, 600
# At once; more than the backlog of a listening socket must not wait.
_BATCH = 200
_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """So many open streams."""

    streams: int
    # Of the worker: resident, and that by stream beyond what it had before the first.
    rss_bytes: int
    bytes_per_stream: float
    # Of a core, while nothing comes: leases are renewed every ten seconds.
    worker_share: float
    redis_share: float


def most() -> int:
    """How many the descriptors of one process allow, and 10 000 at most."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 10_000 if hard == resource.RLIM_INFINITY else min(10_000, (hard - _OTHERS) // _PER_STREAM)


async def opened(target: Target, keys: Sequence[str], counts: Sequence[int], *, idle_s: float) -> list[Open]:
    """Opens streams, evenly by key, until there are so many; looks at each of the ``counts``. Raises ``LoadError``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    request = Request(path=NATIVE_PATH, model=OPEN, is_streamed=True)
    messages = [request.to_bytes(target.url, key) for key in keys]
    seen: list[Open] = []
    try:
        async with _opening(target, messages) as streams:
            # The first ones make what stays: buffers, caches, connections.
            await streams.reach(len(keys))
            before_bytes, base = processes.rss_bytes(target.pids[DATA_PLANE]), len(keys)
            for count in counts:
                await streams.reach(count)
                seen.append(await _looked_at(target, streams.count, before_bytes, base, idle_s))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return seen


async def _looked_at(target: Target, count: int, before_bytes: int, base: int, idle_s: float) -> Open:
    cpu = {role: processes.cpu_us(target.pids[role]) for role in (DATA_PLANE, REDIS)}
    await asyncio.sleep(idle_s)
    shares = {role: (processes.cpu_us(target.pids[role]) - us) / 1e6 / idle_s for role, us in cpu.items()}
    rss_bytes = processes.rss_bytes(target.pids[DATA_PLANE])
    return Open(
        streams=count,
        rss_bytes=rss_bytes,
        bytes_per_stream=(rss_bytes - before_bytes) / max(1, count - base),
        worker_share=shares[DATA_PLANE],
        redis_share=shares[REDIS],
    )


class _Stream(asyncio.Protocol):
    """One stream; ``begun`` when its first record is there."""

    def __init__(self, message: bytes) -> None:
        self._message = message
        self._received = b""
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.has_ended = False
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See ``asyncio.BaseProtocol``."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self._message)

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        self._received += data
        if self.begun.done():
            return
        if b" 200 " not in self._received[:16]:
            self.begun.set_exception(LoadError(f"no stream: {self._received[:300]!r}"))
        elif b'"done":false' in self._received:
            self.begun.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """See ``asyncio.BaseProtocol``."""
        self.has_ended = True
        if not self.begun.done():
            self.begun.set_exception(LoadError(f"a stream ended before it began: {exc}"))


class _Streams:
    """The open streams."""

    def __init__(self, target: Target, messages: Sequence[bytes]) -> None:
        self._address = urlsplit(target.url)
        self._messages = messages
        self._open: list[_Stream] = []

    @property
    def count(self) -> int:
        """How many are open."""
        return sum(not stream.has_ended for stream in self._open)

    async def reach(self, count: int) -> None:
        """Opens further ones until there are so many. Raises ``LoadError`` when one ends."""
        while len(self._open) < count:
            more = min(_BATCH, count - len(self._open))
            async with asyncio.timeout(_TIMEOUT_S):
                begun = await asyncio.gather(*(self._begin(len(self._open) + number) for number in range(more)))
            self._open += begun
        if self.count < count:
            raise LoadError(f"{count - self.count} of {count} streams have ended")

    async def _begin(self, number: int) -> _Stream:
        loop = asyncio.get_running_loop()
        message = self._messages[number % len(self._messages)]
        host, port = str(self._address.hostname), int(self._address.port or 80)
        _, stream = await loop.create_connection(lambda: _Stream(message), host, port)
        await stream.begun
        return stream

    def close(self) -> None:
        """Ends all."""
        for stream in self._open:
            if stream.transport is not None:
                stream.transport.abort()

    def __repr__(self) -> str:
        return f"_Streams({self.count} of {len(self._open)})"


@contextlib.asynccontextmanager
async def _opening(target: Target, messages: Sequence[bytes]) -> AsyncIterator[_Streams]:
    streams = _Streams(target, messages)
    try:
        yield streams
    finally:
        streams.close()
