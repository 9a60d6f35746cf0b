"""One stream of ``Watch``: from the worker's greeting to whatever ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from enum import StrEnum
from typing import Any

import grpc
import grpc.aio
import msgspec
from google.protobuf.message import DecodeError

from controlplane.core.changes import Change
from controlplane.core.replicas import ReplicaRecord
from controlplane.errors import InterruptedStreamError, InvalidRequestError
from controlplane.metrics import Metrics
from controlplane.rpc import state_messages
from controlplane.rpc.state_messages import Messages
from controlplane.watch.hub import Hub
from controlplane.watch.watcher import Watcher
from controlplane.watch.workers import ConnectedWorker, Workers
from neuronetz.state.v1 import state_pb2 as pb
from shared import logs
from shared.clock import Clock

HEARTBEAT_S = 2.0
MISSED_HEARTBEATS = 3
MAX_TEXT = 300

_log = logs.get("controlplane.watch")

# What it reads is a request or the mark of the end; what it writes are bytes.
type Context = grpc.aio.ServicerContext[Any, Any]


class End(StrEnum):
    """Why a stream has ended."""

    CLOSED = "the worker has closed it"
    SILENT = "heartbeats were missed"
    UNREADABLE = "the worker says what cannot be read"
    STALLED = "the worker reads nothing"
    RESYNC = "it must begin anew"
    STOPPING = "this control plane is stopping"


class Shared(msgspec.Struct, frozen=True, kw_only=True):
    """What all streams share."""

    hub: Hub
    messages: Messages
    workers: Workers
    control_plane: str
    metrics: Metrics
    clock: Clock
    heartbeat_s: float = HEARTBEAT_S

    @property
    def silence_s(self) -> float:
        """After so long without a word the other side is as good as gone."""
        return self.heartbeat_s * MISSED_HEARTBEATS


class WorkerStream:
    """One stream; ``run`` returns or raises when it is over."""

    def __init__(self, context: Context, shared: Shared) -> None:
        self._context = context
        self._shared = shared
        self._hub = shared.hub
        self._last_beat_s = shared.clock.monotonic()

    async def run(self) -> None:
        """Serves the worker. Raises ``InvalidRequestError``, ``InterruptedStreamError``."""
        hello = await self._greeting()
        watcher, missed = self._hub.subscribe(hello.revision)
        worker = self._shared.workers.join(self._record(hello))
        _log.info("worker_connected", worker=hello.address, pid=hello.pid, revision=hello.revision)
        end = End.CLOSED
        try:
            end = await self._serve(worker, watcher, missed)
        finally:
            self._hub.unsubscribe(watcher)
            await self._shared.workers.leave(worker)
            _log.info("worker_disconnected", worker=hello.address, reason=end.value, revision=worker.record.revision)
        if end in (End.SILENT, End.STALLED):
            self._shared.metrics.worker_lost()
        if end is End.UNREADABLE:
            raise InvalidRequestError(end.value)
        if end in (End.SILENT, End.STALLED, End.STOPPING):
            raise InterruptedStreamError(end.value)

    async def _greeting(self) -> pb.Hello:
        request = await self._read()
        if request is None or not request.HasField("hello"):
            raise InvalidRequestError("the first message must be hello")
        hello = request.hello
        if not 1 <= len(hello.worker_id) <= MAX_TEXT:
            raise InvalidRequestError(f"worker_id must have 1 to {MAX_TEXT} characters")
        if hello.revision < 0:
            raise InvalidRequestError("revision must not be negative")
        return hello

    async def _serve(self, worker: ConnectedWorker, watcher: Watcher, missed: Sequence[Change] | None) -> End:
        async with asyncio.TaskGroup() as tasks:
            ending = [
                tasks.create_task(_unless_broken(self._hear(worker))),
                tasks.create_task(_unless_broken(self._speak(worker, watcher, missed))),
                tasks.create_task(self._stopped()),
            ]
            done, _ = await asyncio.wait(ending, return_when=asyncio.FIRST_COMPLETED)
            for task in ending:
                task.cancel()
        ends = [task.result() for task in done if not task.cancelled()]
        return ends[0] if ends else End.CLOSED

    async def _hear(self, worker: ConnectedWorker) -> End:
        while True:
            try:
                request = await self._read()
            except InterruptedStreamError:
                return End.SILENT
            except InvalidRequestError:
                return End.UNREADABLE
            if request is None:
                return End.CLOSED
            match request.WhichOneof("message"):
                case "acknowledgement":
                    worker.acknowledge(request.acknowledgement.revision, request.acknowledgement.streams_cut)
                case "rejection":
                    self._shared.metrics.revision_rejected()
                    worker.reject(request.rejection.revision, request.rejection.reason[:MAX_TEXT])
                case "heartbeat":
                    beat = request.heartbeat
                    worker.beat(in_flight=beat.in_flight, ready=beat.ready, draining=beat.draining)

    async def _speak(self, worker: ConnectedWorker, watcher: Watcher, missed: Sequence[Change] | None) -> End:
        try:
            if missed is None:
                await self._send_snapshot(worker, watcher)
            else:
                await self._send_changes(worker, missed)
                await self._write_heartbeat()
            while not watcher.resync_reason:
                await self._send_changes(worker, await watcher.take(within_s=self._until_heartbeat_s()))
                if self._until_heartbeat_s() <= 0:
                    await self._write_heartbeat()
            self._shared.metrics.watcher_resynced()
            await self._write(state_messages.resync(watcher.resync_reason))
        except TimeoutError:
            return End.STALLED
        return End.RESYNC

    async def _send_snapshot(self, worker: ConnectedWorker, watcher: Watcher) -> None:
        """A snapshot, as soon as it is this stream's turn."""
        snapshots, messages = self._hub.snapshots, self._shared.messages
        while not await snapshots.take_slot(within_s=self._until_heartbeat_s()):
            await self._write_heartbeat()
        try:
            await snapshots.freshen()
            # A snapshot says nothing of versions: those that came while it was waited for go before it. Nothing is
            # awaited until its revision is settled, so nothing can come in between.
            parts = [messages.change(change) for change in watcher.take_waiting() if change.is_version]
            worker.told_state(self._hub.revision)
            parts.append(messages.snapshot(snapshots.at(self._hub.revision)))
            for part in parts:
                await self._write(part)
        finally:
            snapshots.return_slot()
        self._shared.metrics.snapshot_sent()

    async def _send_changes(self, worker: ConnectedWorker, changes: Sequence[Change]) -> None:
        for change in changes:
            if not change.is_version:
                worker.told_state(change.revision)
            await self._write(self._shared.messages.change(change))

    async def _stopped(self) -> End:
        await self._hub.ended()
        return End.STOPPING

    async def _read(self) -> pb.WatchRequest | None:
        """The next message, None at the end. Raises ``InterruptedStreamError`` after too long a silence."""
        try:
            async with asyncio.timeout(self._shared.silence_s):
                request = await self._context.read()
        except TimeoutError:
            raise InterruptedStreamError(End.SILENT.value) from None
        except DecodeError:
            raise InvalidRequestError(End.UNREADABLE.value) from None
        return request if isinstance(request, pb.WatchRequest) else None

    async def _write(self, message: bytes) -> None:
        """Sends one message. Raises ``TimeoutError`` when the worker does not take it."""
        async with asyncio.timeout(self._shared.silence_s):
            await self._context.write(message)

    async def _write_heartbeat(self) -> None:
        self._last_beat_s = self._shared.clock.monotonic()
        await self._write(state_messages.heartbeat(self._hub.revision))

    def _until_heartbeat_s(self) -> float:
        return self._last_beat_s + self._shared.heartbeat_s - self._shared.clock.monotonic()

    def _record(self, hello: pb.Hello) -> ReplicaRecord:
        return ReplicaRecord(
            worker_id=hello.worker_id,
            address=hello.address[:MAX_TEXT],
            version=hello.version[:MAX_TEXT],
            pid=hello.pid,
            revision=hello.revision,
            control_plane=self._shared.control_plane,
        )

    def __repr__(self) -> str:
        return f"WorkerStream({self._hub!r})"


async def _unless_broken(work: Coroutine[Any, Any, End]) -> End:
    """What the work says; a call that breaks under it has been closed by the worker."""
    try:
        return await work
    except grpc.aio.BaseError:
        return End.CLOSED
