"""The control plane's end of the watch over real gRPC, Redis and Postgres, with the worker's end as it is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Self

import grpc
import pytest
from redis.asyncio import Redis as RedisClient

from controlplane.core.replicas import ReplicaRecord
from controlplane.publish import connection
from controlplane.publish.replicas import Replicas
from controlplane.rpc.state import StateService
from controlplane.rpc.state_messages import Messages
from controlplane.rpc.watching import Shared
from controlplane.store import engine, migrate
from controlplane.watch.hub import Hub
from controlplane.watch.workers import Workers
from dataplane.state.control import ControlPlanes
from dataplane.state.watch import Identity, Watch
from deploy.local.postgres import Postgres
from deploy.local.redis import Redis
from neuronetz.state.v1 import state_pb2 as pb
from neuronetz.state.v1 import state_pb2_grpc
from shared.clock import SystemClock
from shared.lifecycle import Readiness
from shared.redaction import Secret
from tests.fakes.waiting import until
from tests.integration.controlplane.conftest import DATAPLANE_TOKEN, fresh_database, settings_for
from tests.integration.hubs import hub_over

# Of both ends of a stream, as in the gateway: three times as long without a word is its end, so where a test is not
# about silence, both ends have the same, and one that no busy machine takes for silence. The other one is for tests
# that wait for a heartbeat.
HEARTBEAT_S = 2.0
LIVELY_S = 0.5


class Learnt:
    """What a simulated replica was told; stands where a worker applies it."""

    def __init__(self) -> None:
        self.snapshots: list[pb.Snapshot] = []
        self.changes: list[pb.Change] = []
        # Says how many streams a change cuts, and may refuse it by raising.
        self.apply_change: Callable[[pb.Change], int] = lambda _: 0

    def reset(self, message: pb.Snapshot) -> None:
        self.snapshots.append(message)

    def apply(self, message: pb.Change) -> int:
        self.changes.append(message)
        return self.apply_change(message)

    def versions(self, subject_id: str) -> list[tuple[int, bool]]:
        """What was told of a key or tenant: version, refused."""
        told = [change.key if change.HasField("key") else change.tenant for change in self.changes]
        return [(change.version, change.refused) for change in told if change.id == subject_id]


class Replica:
    """The real client of the watch, with nothing behind it."""

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        heartbeat_s: float = HEARTBEAT_S,
        token: str = DATAPLANE_TOKEN,
        revision: int = 0,
    ) -> None:
        self.learnt = Learnt()
        self.worker_id = str(uuid.uuid4())
        self.readiness = Readiness(())
        self.in_flight = 0
        changes: Any = self.learnt
        self.watch = Watch(
            planes=ControlPlanes(addresses=addresses, token=Secret(token)),
            changes=changes,
            identity=Identity(worker_id=self.worker_id, address="127.0.0.1:8080", version="1.0", pid=os.getpid()),
            readiness=self.readiness,
            in_flight=lambda: self.in_flight,
            clock=SystemClock(),
            heartbeat_s=heartbeat_s,
        )
        self.watch.revision = revision

    @property
    def revision(self) -> int:
        return self.watch.revision

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[Replica]:
        """It watches until the end of the block, and must have gone on until then."""
        task = asyncio.create_task(self.watch.run())
        try:
            yield self
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def watching(*replicas: Replica) -> AsyncIterator[None]:
    async with contextlib.AsyncExitStack() as stack:
        for replica in replicas:
            await stack.enter_async_context(replica.watching())
        await until(lambda: all(replica.watch.is_current for replica in replicas), timeout_s=30)
        yield


class Served:
    """``StateService`` alone, on a port of its own, over a hub that follows the stream."""

    def __init__(
        self, client: RedisClient, *, heartbeat_s: float = HEARTBEAT_S, queue_capacity: int = 1024, **hub: Any
    ) -> None:
        self.hub: Hub = hub_over(client, **hub)
        self.hub._queue_capacity = queue_capacity
        self.replicas = Replicas(client, timeout_s=1.0)
        self.workers = Workers(self.replicas)
        shared = Shared(
            hub=self.hub,
            messages=Messages(self.hub.snapshots),
            workers=self.workers,
            control_plane="one",
            metrics=self.hub._metrics,
            clock=SystemClock(),
            heartbeat_s=heartbeat_s,
        )
        self.service = StateService(shared)
        self.address = ""

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Served]:
        server = grpc.aio.server()
        self.service.add_to_server(server)
        self.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        running = [asyncio.create_task(self.hub.run()), asyncio.create_task(self.workers.run())]
        try:
            await until(lambda: self.hub.is_ready)
            yield self
            assert not any(task.done() for task in running)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await server.stop(0)

    def metric(self, name: str) -> float:
        return self.hub._metrics.registry.get_sample_value(name) or 0.0


class RawStream:
    """A stream that says and reads exactly what a test wants."""

    def __init__(self, address: str, *, token: str = DATAPLANE_TOKEN) -> None:
        # A small window, so that a reader that does not read is noticed soon.
        self.channel = grpc.aio.insecure_channel(
            address, options=(("grpc.http2.lookahead_bytes", 1024), ("grpc.use_local_subchannel_pool", 1))
        )
        stub = state_pb2_grpc.StateServiceStub(self.channel)
        self.call = stub.Watch(metadata=(("authorization", f"Bearer {token}"),))

    async def say(self, **message: Any) -> None:
        await self.call.write(pb.WatchRequest(**message))

    async def hello(self, revision: int = 0, worker_id: str = "w") -> None:
        await self.say(hello=pb.Hello(worker_id=worker_id, address="127.0.0.1:1", revision=revision))

    async def next(self, *kinds: str, timeout_s: float = 15.0) -> pb.WatchResponse:
        """The next message that is not a heartbeat, unless these are wanted; fails at the end of the stream."""
        async with asyncio.timeout(timeout_s):
            while True:
                message = await self.call.read()
                assert isinstance(message, pb.WatchResponse), "the stream has ended"
                kind = message.WhichOneof("message")
                if kind in kinds or (not kinds and kind != "heartbeat"):
                    return message

    async def code(self) -> grpc.StatusCode:
        """How it ends; what is still on the way is read first."""
        async with asyncio.timeout(20):
            with contextlib.suppress(grpc.aio.AioRpcError):
                while await self.call.read() is not grpc.aio.EOF:
                    pass
            code: grpc.StatusCode = await self.call.code()
            return code

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.call.cancel()
        await self.channel.close()


@pytest.fixture
async def client(redis: Redis) -> AsyncIterator[RedisClient]:
    async with connection.connect(redis.url, connect_timeout_s=2.0) as client:
        yield client


@pytest.fixture
async def database(postgres_server: Postgres, redis: Redis) -> AsyncIterator[str]:
    """A migrated database with the pool open."""
    settings = settings_for(await fresh_database(postgres_server), redis.url)
    await engine.connect(settings.database_url.reveal(), pool_size=4, pool_overflow=8)
    try:
        await migrate(settings)
        yield settings.database_url.reveal()
    finally:
        await engine.disconnect()


@pytest.fixture
async def served(client: RedisClient, database: str) -> AsyncIterator[Served]:
    async with Served(client).serving() as served:
        yield served


@pytest.fixture
async def lively(client: RedisClient, database: str) -> AsyncIterator[Served]:
    """With quick heartbeats, for workers that have them too."""
    async with Served(client, heartbeat_s=LIVELY_S).serving() as served:
        yield served


async def record_of(replicas: Replicas, worker_id: str) -> ReplicaRecord | None:
    return next((record for record in await replicas.live() if record.worker_id == worker_id), None)


async def eventually(holds: Callable[[], Any], *, timeout_s: float = 10.0) -> Any:
    """What an asynchronous look gives, once it is true."""
    async with asyncio.timeout(timeout_s):
        while not (result := await holds()):
            await asyncio.sleep(0.01)
    return result
