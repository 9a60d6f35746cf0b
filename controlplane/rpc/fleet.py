"""``FleetService``: the workers of all data planes."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncGenerator
from typing import Protocol

import grpc

from controlplane.core.replicas import ReplicaRecord
from controlplane.errors import InterruptedStreamError, InvalidRequestError, OverloadedError
from controlplane.publish.replicas import Replicas
from controlplane.rpc import convert
from neuronetz.admin.v1 import fleet_pb2 as pb
from neuronetz.admin.v1 import fleet_pb2_grpc

type Context = grpc.aio.ServicerContext[object, object]

DEFAULT_INTERVAL_MS = 1000
MIN_INTERVAL_MS, MAX_INTERVAL_MS = 100, 60_000
MAX_WATCHERS = 32


class Newest(Protocol):
    """Knows the newest revision that workers were told."""

    @property
    def revision(self) -> int:
        """As it is now. Numbers that were drawn and not used do not count."""
        ...


class FleetService(fleet_pb2_grpc.FleetServiceServicer):
    """Reads the registry; ``end`` ends its streams, so that a stop need not wait for their callers."""

    def __init__(self, *, replicas: Replicas, newest: Newest) -> None:
        self._replicas = replicas
        self._newest = newest
        self._watching = 0
        self._ending = asyncio.Event()

    def end(self) -> None:
        """Interrupts every stream."""
        self._ending.set()

    async def ListReplicas(self, request: pb.ListReplicasRequest, context: Context) -> pb.ListReplicasResponse:
        """As the proto says."""
        size = convert.read_page_size(request.page_size)
        after = convert.read_page_token(request.page_token, 2)
        revision, found, now_ms = await self._fleet()
        if after is not None:
            found = [record for record in found if _position(record) > after]
        more = len(found) > size
        return pb.ListReplicasResponse(
            replicas=[_replica(record, revision, now_ms) for record in found[:size]],
            revision=revision,
            next_page_token=convert.write_page_token(*_position(found[size - 1])) if more else "",
        )

    async def WatchFleet(
        self, request: pb.WatchFleetRequest, context: Context
    ) -> AsyncGenerator[pb.WatchFleetResponse]:
        """As the proto says."""
        interval_ms = request.interval_ms or DEFAULT_INTERVAL_MS
        if not MIN_INTERVAL_MS <= interval_ms <= MAX_INTERVAL_MS:
            raise InvalidRequestError(f"interval_ms must be from {MIN_INTERVAL_MS} to {MAX_INTERVAL_MS}")
        if self._watching >= MAX_WATCHERS:
            raise OverloadedError("too many callers watch the fleet")
        self._watching += 1
        try:
            while not self._ending.is_set():
                revision, found, now_ms = await self._fleet()
                replicas = [_replica(record, revision, now_ms) for record in found]
                yield pb.WatchFleetResponse(replicas=replicas, revision=revision)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._ending.wait(), interval_ms / 1000)
            raise InterruptedStreamError("this control plane is stopping: call again")
        finally:
            self._watching -= 1

    async def _fleet(self) -> tuple[int, list[ReplicaRecord], int]:
        """The newest revision, the live workers, and when that was. Raises ``RedisUnavailableError``."""
        found, now_ms = await self._replicas.live_now()
        newest = max((record.revision for record in found), default=0)
        return max(newest, self._newest.revision), found, now_ms

    def __repr__(self) -> str:
        return f"FleetService(watching={self._watching})"


def _position(record: ReplicaRecord) -> tuple[str, str]:
    return record.address, record.worker_id


def _replica(record: ReplicaRecord, revision: int, now_ms: int) -> pb.Replica:
    seen = dt.datetime.fromtimestamp(record.seen_at_ms / 1000, dt.UTC)
    return pb.Replica(
        address=record.address,
        pid=record.pid,
        version=record.version,
        ready=record.ready,
        in_flight=record.in_flight,
        revision=record.revision,
        lag=max(0, revision - record.revision),
        rejected=record.rejected,
        silent_s=max(0, now_ms - record.seen_at_ms) / 1000,
        last_contact=convert.write_moment(seen),
        control_plane=record.control_plane,
        worker_id=record.worker_id,
    )
