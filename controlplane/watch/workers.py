"""The workers that watch this control plane: who they are, what they have acknowledged, and how others learn of it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Protocol

import msgspec

from controlplane.core.replicas import MAX_REVISIONS, ReplicaRecord
from controlplane.errors import RedisUnavailableError
from shared import logs

_log = logs.get("controlplane.watch")


class Registry(Protocol):
    """The workers of all control planes. Every method raises ``RedisUnavailableError``."""

    async def report(self, *records: ReplicaRecord) -> None:
        """Says that these workers were heard of now."""
        ...

    async def forget(self, worker_id: str) -> None:
        """Says that a worker has ended."""
        ...


class Workers:
    """The workers of this process by their ids. ``changed`` wakes whoever waits for acknowledgements.

    ``run`` tells the registry: whatever is new while one report is under way goes into the next, so that a hundred
    workers that acknowledge at once are not a hundred commands.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._connected: dict[str, ConnectedWorker] = {}
        self._moved = asyncio.Event()
        self._unreported: dict[str, ReplicaRecord] = {}
        self._reportable = asyncio.Event()

    async def run(self) -> None:
        """Reports until cancelled."""
        while True:
            await self._reportable.wait()
            self._reportable.clear()
            records, self._unreported = list(self._unreported.values()), {}
            try:
                await self._registry.report(*records)
            except RedisUnavailableError as fault:
                # They all say something again within seconds.
                _log.debug("workers_not_reported", workers=len(records), fault=str(fault))

    def join(self, record: ReplicaRecord) -> ConnectedWorker:
        """A worker has connected; what it acknowledged over an earlier stream is still known."""
        before = self._connected.get(record.worker_id)
        if before is not None:
            record = msgspec.structs.replace(record, streams_cut=before.record.streams_cut)
        worker = ConnectedWorker(self, record)
        self._connected[record.worker_id] = worker
        self.report(record)
        self.move()
        return worker

    async def leave(self, worker: ConnectedWorker) -> None:
        """Its stream has ended; another one of the same worker stays.

        One that has said that it is going is forgotten: nobody needs to wait for it. Any other may have gone on with
        another control plane.
        """
        worker_id = worker.record.worker_id
        if self._connected.get(worker_id) is not worker:
            return
        del self._connected[worker_id]
        self.move()
        if worker.draining:
            self._unreported.pop(worker_id, None)
            try:
                await self._registry.forget(worker_id)
            except RedisUnavailableError as fault:
                _log.debug("worker_not_forgotten", worker=worker.record.address, fault=str(fault))

    def report(self, record: ReplicaRecord) -> None:
        """Has the registry told, as soon as it can be."""
        self._unreported[record.worker_id] = record
        self._reportable.set()

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
        self.record = record
        self.draining = False
        # Revisions at which it was told a whole state, of which it may have rejected one.
        self._states: deque[int] = deque(maxlen=MAX_REVISIONS)
        self._rejected_state = False

    def told_state(self, revision: int) -> None:
        """It was told backends, models or everything at this revision."""
        self._states.append(revision)

    def acknowledge(self, revision: int, streams_cut: int) -> None:
        """It has applied a revision; what was wrong with a state is only made good by another state."""
        cut = dict(self.record.streams_cut)
        cut[revision] = max(streams_cut, cut.pop(revision, 0))
        while len(cut) > MAX_REVISIONS:
            del cut[next(iter(cut))]
        rejected = self.record.rejected if self._rejected_state and revision not in self._states else ""
        self._rejected_state = bool(rejected)
        self._become(revision=max(revision, self.record.revision), streams_cut=cut, rejected=rejected)
        self._workers.move()

    def reject(self, revision: int, reason: str) -> None:
        """It could not apply a revision and goes on with the last good one."""
        _log.warning("revision_rejected", worker=self.record.address, revision=revision, reason=reason)
        self._rejected_state = revision in self._states
        self._become(rejected=f"{revision}: {reason}")
        self._workers.move()

    def beat(self, *, in_flight: int, ready: bool, draining: bool) -> None:
        """It is there."""
        self.draining = draining
        self._become(in_flight=in_flight, ready=ready)

    def _become(self, **values: object) -> None:
        self.record = msgspec.structs.replace(self.record, **values)
        self._workers.report(self.record)

    def __repr__(self) -> str:
        return f"ConnectedWorker({self.record.address}, revision={self.record.revision})"
