"""Whole states for workers that cannot be told what they have missed: made once, given to few at a time."""

from __future__ import annotations

import asyncio
from typing import Protocol

import msgspec

from controlplane.errors import RedisUnavailableError
from controlplane.metrics import Metrics
from controlplane.publish.published import Published
from shared import logs
from shared.clock import Clock

MAX_AT_A_TIME = 10
# What was read longer ago is read again before it is given away.
FRESH_S = 1.0
# So long a snapshot is given to everybody who asks; its validity is understated by as much.
SHARED_S = 0.5

_log = logs.get("controlplane.watch")


class PublishedSource(Protocol):
    """Where published state is read."""

    async def read(self) -> Published:
        """What is published now. Raises ``RedisUnavailableError``."""
        ...


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Everything at one revision; empty bytes where nothing is known."""

    revision: int
    config: bytes
    discovered: bytes
    discovered_valid_ms: int


class Snapshots:
    """Keeps what is published; without Redis what was published last."""

    def __init__(
        self, *, source: PublishedSource, clock: Clock, metrics: Metrics, at_a_time: int = MAX_AT_A_TIME
    ) -> None:
        self._source = source
        self._clock = clock
        self._metrics = metrics
        self._slots = asyncio.Semaphore(at_a_time)
        self._reading = asyncio.Lock()
        self._discovered = b""
        self._valid_until_s = 0.0
        self._read_at_s = float("-inf")
        self._shared: tuple[float, Snapshot] | None = None
        self.config = b""
        self.in_flight = 0
        self.most_in_flight = 0

    async def read(self) -> None:
        """Reads what is published. Raises ``RedisUnavailableError``."""
        async with self._reading:
            await self._read()

    async def freshen(self) -> None:
        """Reads it when that was too long ago; keeps what is there when that fails."""
        async with self._reading:
            if self._clock.monotonic() - self._read_at_s < FRESH_S:
                return
            try:
                await self._read()
            except RedisUnavailableError as fault:
                _log.debug("snapshot_not_freshened", fault=str(fault))

    def replace_config(self, config: bytes) -> None:
        """Takes backends that Redis does not have yet."""
        self.config = config
        self._shared = None

    def discovered(self) -> tuple[bytes, int]:
        """What was discovered and how many milliseconds it stays valid; nothing when that is over."""
        valid_ms = round(1000 * (self._valid_until_s - self._clock.monotonic()))
        return (self._discovered, valid_ms) if valid_ms > 0 else (b"", 0)

    def at(self, revision: int) -> Snapshot:
        """The snapshot of now; the same object for everybody who asks within half a second."""
        now_s = self._clock.monotonic()
        if self._shared is not None and self._shared[1].revision == revision and now_s - self._shared[0] < SHARED_S:
            return self._shared[1]
        discovered, valid_ms = self.discovered()
        snapshot = Snapshot(
            revision=revision,
            config=self.config,
            discovered=discovered,
            discovered_valid_ms=max(0, valid_ms - round(1000 * SHARED_S)),
        )
        self._shared = (now_s, snapshot)
        self._metrics.snapshot_made()
        return snapshot

    async def take_slot(self, *, within_s: float) -> bool:
        """The right to send one, to be returned: waits in line for it, False after ``within_s``."""
        try:
            async with asyncio.timeout(max(0.0, within_s)):
                await self._slots.acquire()
        except TimeoutError:
            return False
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        return True

    def return_slot(self) -> None:
        """It has been sent, or could not be."""
        self.in_flight -= 1
        self._slots.release()

    async def _read(self) -> None:
        published = await self._source.read()
        now_s = self._clock.monotonic()
        # Backends do not expire: a Redis that has lost them is about to be given them again.
        self.config = published.config or self.config
        if published.discovered:
            self._discovered = published.discovered
            self._valid_until_s = now_s + published.discovered_ttl_ms / 1000
        self._read_at_s = now_s
        self._shared = None

    def __repr__(self) -> str:
        return f"Snapshots(config={len(self.config)}, in_flight={self.in_flight})"
