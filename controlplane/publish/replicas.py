"""The workers of the data plane as all control planes know them: ``gateway:replicas``.

Each control plane writes those that watch it. Times are those of Redis, so that the clocks of control planes may
differ.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
from redis.asyncio import Redis

from controlplane.core.replicas import ReplicaRecord
from controlplane.publish.connection import translated
from shared import keyspace
from shared import records as shared_records

_HERE = Path(__file__).parent
# A worker is live for so long after it was last heard of.
LIVE_S = 6.0
# When its entry is dropped.
KEPT_S = 60.0

# Workers of one call.
_BATCH = 100

_RECORD = shared_records.decoder(ReplicaRecord)


class Replicas:
    """The registry. Every method raises ``RedisUnavailableError``."""

    def __init__(self, redis: Redis, *, timeout_s: float) -> None:
        self._redis = redis
        self._timeout_s = timeout_s
        self._report = redis.register_script((_HERE / "report_replica.lua").read_text())

    async def report(self, *records: ReplicaRecord) -> None:
        """Says that these workers were heard of now."""
        for start in range(0, len(records), _BATCH):
            arguments: list[bytes | str | int] = [round(KEPT_S * 1000)]
            for record in records[start : start + _BATCH]:
                arguments += [record.worker_id, _unstamped(record)]
            with translated():
                async with asyncio.timeout(self._timeout_s):
                    await self._report(keys=[keyspace.REPLICAS], args=arguments)

    async def forget(self, worker_id: str) -> None:
        """Says that a worker has ended."""
        command: Any = self._redis.hdel
        with translated():
            async with asyncio.timeout(self._timeout_s):
                await command(keyspace.REPLICAS, worker_id)

    async def live(self) -> list[ReplicaRecord]:
        """Workers that were heard of in the last 6 seconds, in the order of their addresses and ids."""
        found, _ = await self.live_now()
        return found

    async def live_now(self) -> tuple[list[ReplicaRecord], int]:
        """The same, and the time of Redis at which they were, in milliseconds."""
        with translated():
            async with asyncio.timeout(self._timeout_s), self._redis.pipeline(transaction=False) as pipe:
                pipe.hvals(keyspace.REPLICAS)
                pipe.time()
                entries, (seconds, micros) = await pipe.execute()
        now_ms = seconds * 1000 + micros // 1000
        since_ms = now_ms - round(LIVE_S * 1000)
        found = [record for raw in entries if (record := _decoded(raw)) is not None and record.seen_at_ms >= since_ms]
        return sorted(found, key=lambda record: (record.address, record.worker_id)), now_ms

    def __repr__(self) -> str:
        return f"Replicas(timeout_s={self._timeout_s})"


class _Unstamped(msgspec.Struct, frozen=True, kw_only=True):
    """A record as the script takes it."""

    worker_id: str
    address: str
    version: str
    pid: int
    revision: int
    rejected: str
    in_flight: int
    ready: bool
    control_plane: str
    streams_cut: dict[int, int]


def _unstamped(record: ReplicaRecord) -> bytes:
    # The stamp is the last field, and is the server's to write.
    fields = {name: getattr(record, name) for name in _Unstamped.__struct_fields__}
    return shared_records.encode(_Unstamped(**fields))


def _decoded(raw: bytes) -> ReplicaRecord | None:
    try:
        return shared_records.decode(_RECORD, raw)
    except shared_records.RecordError:
        # Of a release that is not ours.
        return None
