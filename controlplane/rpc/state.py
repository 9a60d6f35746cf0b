"""``StateService``: what the workers of the data plane watch."""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio

from controlplane.errors import ControlPlaneError, InterruptedStreamError, rendered
from controlplane.rpc import state_messages
from controlplane.rpc.watching import Context, Shared, WorkerStream
from neuronetz.state.v1 import state_pb2 as pb
from shared import logs

NAME = "neuronetz.state.v1.StateService"

_log = logs.get("controlplane.rpc")

type UnaryContext = grpc.aio.ServicerContext[pb.GetSnapshotRequest, pb.GetSnapshotResponse]


class StateService:
    """One stream per worker process."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    async def Watch(self, _requests: object, context: Context) -> None:
        """As the proto says; what it sends are bytes already."""
        try:
            await WorkerStream(context, self._shared).run()
        except Exception as error:
            kind, text = rendered(error)
            if not isinstance(error, ControlPlaneError):
                _log.exception("call_failed", method="Watch")
            await context.abort(grpc.StatusCode[kind.name], text)

    async def GetSnapshot(self, request: pb.GetSnapshotRequest, context: UnaryContext) -> pb.GetSnapshotResponse:
        """As the proto says."""
        hub = self._shared.hub
        if not hub.is_ready:
            raise InterruptedStreamError("nothing is known yet")
        await hub.snapshots.freshen()
        return pb.GetSnapshotResponse(snapshot=state_messages.message_of(hub.snapshots.at(hub.revision)))

    def add_to_server(self, server: grpc.aio.Server) -> None:
        """Registers it. Unlike the generated function this lets ``Watch`` send bytes, made once for everybody."""
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Watch": grpc.stream_stream_rpc_method_handler(
                self.Watch, request_deserializer=pb.WatchRequest.FromString, response_serializer=None
            ),
            "GetSnapshot": grpc.unary_unary_rpc_method_handler(
                self.GetSnapshot,
                request_deserializer=pb.GetSnapshotRequest.FromString,
                response_serializer=pb.GetSnapshotResponse.SerializeToString,
            ),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, handlers),))
