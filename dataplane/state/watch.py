"""The worker's end of ``StateService.Watch``: one stream to one control plane, and another one when it is lost.

Nothing is decided on this stream; without it the worker serves what it knows and reads Redis instead
(``watcher``). A stream that has been silent for three heartbeats is as good as closed, whatever TCP says.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass

import grpc
import grpc.aio
import msgspec

from dataplane.state.changes import Changes
from dataplane.state.control import ControlPlanes
from dataplane.state.store import StateRejectedError
from neuronetz.state.v1 import state_pb2, state_pb2_grpc
from shared import logs
from shared.backoff import Backoff
from shared.clock import Clock
from shared.lifecycle import Readiness

HEARTBEAT_S = 2.0
MISSED_HEARTBEATS = 3
# What waits to be sent; a server that reads so slowly is left.
MAX_UNSENT = 10_000

type _Call = grpc.aio.StreamStreamCall[state_pb2.WatchRequest, state_pb2.WatchResponse]

log = logs.get(__name__)


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who this worker is, as operators see it."""

    worker_id: str
    # host:port where it serves clients.
    address: str
    version: str
    pid: int


@dataclass(slots=True)
class WatchCounts:
    """What has happened since the worker started, for its metrics."""

    streams: int = 0
    applied: int = 0
    rejected: int = 0
    cut: int = 0


class Watch:
    """Keeps a stream to one of the control planes. ``in_flight`` counts the requests that are being answered."""

    def __init__(
        self,
        *,
        planes: ControlPlanes,
        changes: Changes,
        identity: Identity,
        readiness: Readiness,
        in_flight: Callable[[], int],
        clock: Clock,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        self._planes = planes
        self._changes = changes
        self._identity = identity
        self._readiness = readiness
        self._in_flight = in_flight
        self._clock = clock
        self._heartbeat_s = heartbeat_s
        self._backoff = Backoff()
        self._unsent: asyncio.Queue[state_pb2.WatchRequest] = asyncio.Queue(MAX_UNSENT)
        # Why each control plane could not be watched last, so that an outage is not a line per attempt.
        self._problems: dict[str, str] = {}
        self.counts = WatchCounts()
        self.revision = 0
        self.is_current = False

    async def run(self) -> None:
        """Watches until it is cancelled; without any control plane it returns at once."""
        addresses = self._planes.addresses
        # Workers begin at different ones, and go on in turn.
        turn = random.SystemRandom().randrange(len(addresses)) if addresses else 0
        while addresses:
            address = addresses[turn % len(addresses)]
            turn += 1
            reason = await self._watch(address)
            self.is_current = False
            if self._problems.get(address) != reason:
                log.warning("watch_lost", control_plane=address, reason=reason, revision=self.revision)
                self._problems[address] = reason
            await asyncio.sleep(self._backoff.next_s())

    async def _watch(self, address: str) -> str:
        """One stream from its beginning to its end; gives the reason of the end."""
        self._unsent = asyncio.Queue(MAX_UNSENT)
        self._unsent.put_nowait(state_pb2.WatchRequest(hello=self._hello()))
        async with self._planes.channel(address) as channel:
            call: _Call = state_pb2_grpc.StateServiceStub(channel).Watch(metadata=self._planes.metadata)
            async with asyncio.TaskGroup() as tasks:
                speaking = (tasks.create_task(self._send(call)), tasks.create_task(self._beat()))
                try:
                    return await self._listen(call, address)
                finally:
                    for task in speaking:
                        task.cancel()

    async def _listen(self, call: _Call, address: str) -> str:
        connected = False
        while True:
            try:
                async with asyncio.timeout(self._heartbeat_s * MISSED_HEARTBEATS):
                    message = await call.read()
            except TimeoutError:
                return "heartbeats were missed"
            except grpc.aio.AioRpcError as fault:
                return fault.code().name
            except asyncio.CancelledError:
                # A stream that the server has cancelled surfaces as if this task had been.
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                return grpc.StatusCode.CANCELLED.name
            if not isinstance(message, state_pb2.WatchResponse):
                return "the control plane ended the stream"
            kind = message.WhichOneof("message")
            if kind == "resync":
                return f"resync: {message.resync.reason}"
            try:
                await self._take(kind, message)
            except asyncio.QueueFull:
                return "the control plane does not read"
            if self.is_current and not connected:
                connected = True
                self._connected(address)

    async def _take(self, kind: str | None, message: state_pb2.WatchResponse) -> None:
        match kind:
            case "snapshot":
                await self._apply(message.snapshot.revision, lambda: self._reset(message.snapshot))
            case "change":
                await self._apply(message.change.revision, lambda: self._changes.apply(message.change))
            case "heartbeat":
                # It has stayed long enough to be trusted with another quick reconnect.
                self._backoff.reset()
                self.is_current |= message.heartbeat.revision <= self.revision

    def _reset(self, snapshot: state_pb2.Snapshot) -> int:
        self._changes.reset(snapshot)
        return 0

    async def _apply(self, revision: int, change: Callable[[], int]) -> None:
        """Applies one revision and answers for it."""
        arrived_s = self._clock.monotonic()
        try:
            streams_cut = change()
        except Exception as fault:
            # Whatever a control plane sends, it must not take the worker down.
            reason = str(fault) if isinstance(fault, StateRejectedError) else "it could not be applied"
            log.exception("state_rejected", revision=revision, reason=reason)
            self.counts.rejected += 1
            rejection = state_pb2.Rejection(revision=revision, reason=reason)
            self._unsent.put_nowait(state_pb2.WatchRequest(rejection=rejection))
            return
        if streams_cut:
            # Their tasks are woken before the acknowledgement is written.
            await asyncio.sleep(0)
        self.revision = max(self.revision, revision)
        self.is_current = True
        self.counts.applied += 1
        self.counts.cut += streams_cut
        acknowledgement = state_pb2.Acknowledgement(
            revision=revision,
            streams_cut=streams_cut,
            applied_in_us=round((self._clock.monotonic() - arrived_s) * 1_000_000),
        )
        self._unsent.put_nowait(state_pb2.WatchRequest(acknowledgement=acknowledgement))

    async def _send(self, call: _Call) -> None:
        # A stream that has ended tells why where it is read; one that does not take anything is noticed there too.
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while True:
                await call.write(await self._unsent.get())

    async def _beat(self) -> None:
        while True:
            draining = self._readiness.draining
            heartbeat = state_pb2.WorkerHeartbeat(
                revision=self.revision, in_flight=self._in_flight(), ready=self._readiness.ready, draining=draining
            )
            with contextlib.suppress(asyncio.QueueFull):
                self._unsent.put_nowait(state_pb2.WatchRequest(heartbeat=heartbeat))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._heartbeat_s):
                    # That it drains is said at once.
                    await (asyncio.Event().wait() if draining else self._readiness.drain_started())

    def _connected(self, address: str) -> None:
        self._problems.pop(address, None)
        self.counts.streams += 1
        log.info("watch_connected", control_plane=address, revision=self.revision)

    def _hello(self) -> state_pb2.Hello:
        who = self._identity
        return state_pb2.Hello(
            worker_id=who.worker_id, address=who.address, version=who.version, pid=who.pid, revision=self.revision
        )

    def __repr__(self) -> str:
        return f"Watch({self._planes!r}, revision={self.revision}, current={self.is_current})"
