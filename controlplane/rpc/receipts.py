"""Receipts: which workers have applied a change, how many streams each has cut, and how long that took.

Workers that watch this control plane say so to it; of the others the registry tells. A worker that has not answered in
time gets a line that says so: the change holds for new requests all the same, because admission asks Redis.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Protocol

from google.protobuf.duration_pb2 import Duration

from controlplane.core.changes import Announced
from controlplane.core.replicas import ReplicaRecord
from controlplane.errors import InvalidRequestError, RedisUnavailableError
from controlplane.rpc import convert
from neuronetz.admin.v1 import receipt_pb2
from shared.clock import Clock

MAX_TIMEOUT_S = 60.0
# How often the registry is asked for workers of other control planes.
POLL_S = 0.05


class Connected(Protocol):
    """The workers that watch this control plane."""

    @property
    def records(self) -> Sequence[ReplicaRecord]:
        """As they are now."""
        ...

    async def changed(self) -> None:
        """Returns when any of them has said something new."""
        ...


class Registry(Protocol):
    """The workers of all control planes."""

    async def live(self) -> list[ReplicaRecord]:
        """Those heard of lately. Raises ``RedisUnavailableError``."""
        ...


class Receipts:
    """Collects them. ``default_timeout_s`` holds where a request does not say how long to wait."""

    def __init__(self, *, connected: Connected, registry: Registry, default_timeout_s: float, clock: Clock) -> None:
        self._connected = connected
        self._registry = registry
        self._default_timeout_s = default_timeout_s
        self._clock = clock

    def now_s(self) -> float:
        """The moment from which receipts are timed: take it before the change is published."""
        return self._clock.monotonic()

    def timeout_s(self, given: Duration | None) -> float:
        """How long to wait. Raises ``InvalidRequestError``."""
        if given is None:
            return self._default_timeout_s
        seconds = convert.read_duration(given).total_seconds()
        if not 0 <= seconds <= MAX_TIMEOUT_S:
            raise InvalidRequestError(f"receipt_timeout must be from 0 to {MAX_TIMEOUT_S:g} seconds")
        return seconds

    async def of(self, announced: Announced, *, since_s: float, timeout_s: float) -> list[receipt_pb2.Receipt]:
        """One for each live worker, in the order of their addresses; waits until all have applied the change."""
        revision = announced.revision
        if not revision:
            return []
        elapsed_ms: dict[str, int] = {}
        until_s = since_s + timeout_s
        while True:
            records = await self._records(everywhere=announced.applied)
            now_s = self._clock.monotonic()
            for record in records:
                if record.worker_id not in elapsed_ms and _has_applied(record, announced):
                    elapsed_ms[record.worker_id] = round(1000 * (now_s - since_s))
            if now_s >= until_s or all(record.worker_id in elapsed_ms for record in records):
                break
            await self._any_change(min(POLL_S, until_s - now_s))
        return [_receipt(record, revision, elapsed_ms.get(record.worker_id)) for record in records]

    async def _records(self, *, everywhere: bool) -> list[ReplicaRecord]:
        found: dict[str, ReplicaRecord] = {}
        # The registry is in the Redis that has just not answered: asking it would only take its deadline once more.
        if everywhere:
            with contextlib.suppress(RedisUnavailableError):
                found = {record.worker_id: record for record in await self._registry.live()}
        found |= {record.worker_id: record for record in self._connected.records}
        return sorted(found.values(), key=lambda record: (record.address, record.worker_id))

    async def _any_change(self, timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._connected.changed()

    def __repr__(self) -> str:
        return f"Receipts(default_timeout_s={self._default_timeout_s})"


def _has_applied(record: ReplicaRecord, announced: Announced) -> bool:
    """Whether a worker has said so. What was told without Redis is in no order: only its very revision counts."""
    return announced.revision in record.streams_cut or (announced.applied and record.revision >= announced.revision)


def _receipt(record: ReplicaRecord, revision: int, elapsed_ms: int | None) -> receipt_pb2.Receipt:
    return receipt_pb2.Receipt(
        worker_id=record.worker_id,
        address=record.address,
        revision=record.revision,
        applied=elapsed_ms is not None,
        streams_cut=_streams_cut(record, revision) if elapsed_ms is not None else 0,
        elapsed_ms=elapsed_ms or 0,
    )


def _streams_cut(record: ReplicaRecord, revision: int) -> int:
    """What was cut at the revision, or at the next one that was acknowledged: several may be acknowledged as one."""
    later = [acknowledged for acknowledged in record.streams_cut if acknowledged >= revision]
    return record.streams_cut[min(later)] if later else 0
