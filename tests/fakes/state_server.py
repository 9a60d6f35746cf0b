"""A control plane that says on the watch what a test tells it: real gRPC, with the real stubs, over a real socket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc
import grpc.aio

from neuronetz.state.v1 import state_pb2, state_pb2_grpc
from shared import records
from shared.records import ConfigRecord, DiscoveredRecord
from tests.fakes.waiting import until

TOKEN = "dataplane-token-for-tests"


def snapshot(
    revision: int, config: ConfigRecord, discovered: DiscoveredRecord | None = None, *, valid_ms: int = 60_000
) -> state_pb2.WatchResponse:
    return state_pb2.WatchResponse(
        snapshot=state_pb2.Snapshot(
            revision=revision,
            config=records.encode(config),
            discovered=b"" if discovered is None else records.encode(discovered),
            discovered_valid_ms=valid_ms,
        )
    )


def key_change(revision: int, key_id: str, version: int, *, refused: bool = False) -> state_pb2.WatchResponse:
    change = state_pb2.VersionChange(id=key_id, version=version, refused=refused)
    return state_pb2.WatchResponse(change=state_pb2.Change(revision=revision, key=change))


def tenant_change(revision: int, tenant_id: str, version: int, *, refused: bool = False) -> state_pb2.WatchResponse:
    change = state_pb2.VersionChange(id=tenant_id, version=version, refused=refused)
    return state_pb2.WatchResponse(change=state_pb2.Change(revision=revision, tenant=change))


# A small window that does not grow: so that a peer that does not read is felt soon.
_OPTIONS = (("grpc.so_reuseport", 0), ("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0))


class Stream:
    """One worker's stream: what it has said, and what it is to be told."""

    def __init__(self) -> None:
        self.received: list[state_pb2.WatchRequest] = []
        self.outgoing: asyncio.Queue[state_pb2.WatchResponse | None] = asyncio.Queue()
        self.is_open = True

    @property
    def hello(self) -> state_pb2.Hello:
        assert self.received[0].WhichOneof("message") == "hello"
        return self.received[0].hello

    @property
    def heartbeats(self) -> list[state_pb2.WorkerHeartbeat]:
        return [message.heartbeat for message in self.received if message.HasField("heartbeat")]

    @property
    def rejections(self) -> list[state_pb2.Rejection]:
        return [message.rejection for message in self.received if message.HasField("rejection")]

    @property
    def acknowledged(self) -> list[int]:
        return [message.acknowledgement.revision for message in self.received if message.HasField("acknowledgement")]

    def say(self, *messages: state_pb2.WatchResponse) -> None:
        for message in messages:
            self.outgoing.put_nowait(message)

    def end(self) -> None:
        self.outgoing.put_nowait(None)

    async def acknowledgement(self, revision: int) -> state_pb2.Acknowledgement:
        """The worker's answer for a revision, when it has come."""
        await until(lambda: revision in self.acknowledged)
        return next(
            message.acknowledgement for message in self.received if message.acknowledgement.revision == revision
        )


class StateServer(state_pb2_grpc.StateServiceServicer):
    """Opens streams with ``opening`` and sends heartbeats until it is ``silent``."""

    def __init__(self, *opening: state_pb2.WatchResponse, heartbeat_s: float = 0.05) -> None:
        self.opening = opening
        self.heartbeat_s = heartbeat_s
        self.silent = False
        # Reads nothing after the greeting.
        self.is_deaf = False
        self.refusal: grpc.StatusCode | None = None
        self.streams: list[Stream] = []
        self.port = 0
        self.address = ""
        self._server: grpc.aio.Server | None = None

    async def Watch(self, request_iterator, context):  # noqa: N802 - names of the proto
        if dict(context.invocation_metadata()).get("authorization") != f"Bearer {TOKEN}":
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no such token")
        if self.refusal is not None:
            await context.abort(self.refusal, "no")
        stream = Stream()
        stream.say(*self.opening)
        hearing = asyncio.create_task(self._hear(request_iterator, stream))
        try:
            await until(lambda: stream.received)
            self.streams.append(stream)
            while True:
                try:
                    async with asyncio.timeout(self.heartbeat_s):
                        message = await stream.outgoing.get()
                except TimeoutError:
                    if not self.silent:
                        yield state_pb2.WatchResponse(heartbeat=state_pb2.Heartbeat())
                    continue
                if message is None:
                    return
                yield message
        finally:
            stream.is_open = False
            hearing.cancel()

    async def GetSnapshot(self, request, context):  # noqa: N802
        return state_pb2.GetSnapshotResponse(snapshot=self.opening[0].snapshot)

    async def stream(self, number: int = 0) -> Stream:
        """The stream with this number, from 0, once it is there."""
        await until(lambda: len(self.streams) > number)
        return self.streams[number]

    async def start(self, credentials: grpc.ServerCredentials | None = None) -> None:
        """Listens, on the port that it had before if it had one."""
        self._server = grpc.aio.server(options=_OPTIONS)
        state_pb2_grpc.add_StateServiceServicer_to_server(self, self._server)
        address = f"127.0.0.1:{self.port}"
        if credentials is None:
            self.port = self._server.add_insecure_port(address)
        else:
            self.port = self._server.add_secure_port(address, credentials)
        self.address = f"127.0.0.1:{self.port}"
        await self._server.start()

    async def stop(self) -> None:
        """Ends every stream without a word."""
        assert self._server is not None
        await self._server.stop(None)

    async def _hear(self, requests: AsyncIterator[state_pb2.WatchRequest], stream: Stream) -> None:
        async for request in requests:
            stream.received.append(request)
            if self.is_deaf:
                return


@contextlib.asynccontextmanager
async def serving(server: StateServer, credentials: grpc.ServerCredentials | None = None) -> AsyncIterator[StateServer]:
    """The server runs until the end of the block."""
    await server.start(credentials)
    try:
        yield server
    finally:
        await server.stop()
