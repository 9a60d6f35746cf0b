"""The workers that watch this control plane: who they are, what they have acknowledged, and how others learn of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

import msgspec

from controlplane.core.replicas import MAX_REVISIONS, ReplicaRecord
from controlplane.errors import RedisUnavailableError
from shared import logs

_log = logs.get("controlplane.watch")


class Registry(Protocol):
    """The workers of all control planes. Every method raises ``RedisUnavailableError``."""

    async def report(self, record: ReplicaRecord) -> None:
        """Says that a worker was heard of now."""
        ...

    async def forget(self, worker_id: str) -> None:
        """Says that a worker has ended."""
        ...


class Workers:
    """The workers of this process by their ids. ``changed`` wakes whoever waits for acknowledgements."""

    def __init__(self) -> None:
        self._connected: dict[str, ConnectedWorker] = {}
        self._moved = asyncio.Event()

    def join(self, record: ReplicaRecord) -> ConnectedWorker:
        """A worker has connected; what it acknowledged over an earlier stream is still known."""
        before = self._connected.get(record.worker_id)
        if before is not None:
            record = msgspec.structs.replace(record, streams_cut=before.record.streams_cut)
        worker = ConnectedWorker(self, record)
        self._connected[record.worker_id] = worker
        self.move()
        return worker

    def leave(self, worker: ConnectedWorker) -> None:
        """Its stream has ended; another one of the same worker stays."""
        if self._connected.get(worker.record.worker_id) is worker:
            del self._connected[worker.record.worker_id]
            self.move()

    @property
    def records(self) -> Sequence[ReplicaRecord]:
        """Every worker that is connected here, as it is now; ``seen_at_ms`` is not set."""
        return [worker.record for worker in self._connected.values()]

    async def changed(self) -> None:
        """Returns when any worker has said something new, or has come or gone."""
        await self._moved.wait()

    def move(self) -> None:
        """Wakes whoever waits for a change."""
        self._moved.set()
        self._moved = asyncio.Event()

    def __repr__(self) -> str:
        return f"Workers({len(self._connected)})"


class ConnectedWorker:
    """One worker over one stream."""

    def __init__(self, workers: Workers, record: ReplicaRecord) -> None:
        self._workers = workers
        self._unreported = asyncio.Event()
        self.record = record
        self.draining = False

    def acknowledge(self, revision: int, streams_cut: int) -> None:
        """It has applied a revision."""
        cut = dict(self.record.streams_cut)
        cut[revision] = max(streams_cut, cut.pop(revision, 0))
        while len(cut) > MAX_REVISIONS:
            del cut[next(iter(cut))]
        self._become(revision=max(revision, self.record.revision), streams_cut=cut, rejected="")
        self._workers.move()

    def reject(self, revision: int, reason: str) -> None:
        """It could not apply a revision and goes on with the last good one."""
        _log.warning("revision_rejected", worker=self.record.address, revision=revision, reason=reason)
        self._become(rejected=f"{revision}: {reason}")
        self._workers.move()

    def beat(self, *, in_flight: int, ready: bool, draining: bool) -> None:
        """It is there."""
        self.draining = draining
        self._become(in_flight=in_flight, ready=ready)

    async def keep_reporting(self, registry: Registry) -> None:
        """Reports whatever is new until cancelled; while one report is under way, what comes is gathered."""
        while True:
            self._unreported.clear()
            try:
                await registry.report(self.record)
            except RedisUnavailableError as fault:
                _log.debug("worker_not_reported", worker=self.record.address, fault=str(fault))
            await self._unreported.wait()

    def _become(self, **values: object) -> None:
        self.record = msgspec.structs.replace(self.record, **values)
        self._unreported.set()

    def __repr__(self) -> str:
        return f"ConnectedWorker({self.record.address}, revision={self.record.revision})"
