"""The gRPC server: its services, its bounds, its credentials, and its health."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import grpc
import msgspec
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from controlplane.core.roles import Callers
from controlplane.rpc.bounds import CallBounds
from controlplane.rpc.interceptors import Gatekeeper

REFLECTION_OF_TODAY = "grpc.reflection.v1.ServerReflection"
MAX_RECEIVED_BYTES = 1024 * 1024
# A page of a thousand keys with many grants each.
MAX_SENT_BYTES = 32 * 1024 * 1024
# Data planes watch with one call each and verify keys with a few; the calls of all others are bounded far below this.
MAX_CONCURRENT_CALLS = 4000
MAX_CALLS_OF_ONE_CONNECTION = 512
KEEPALIVE_S = 20
KEEPALIVE_TIMEOUT_S = 10
# Clients may ping this often; sooner is answered with GOAWAY.
MIN_PING_INTERVAL_S = 5

_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_RECEIVED_BYTES),
    ("grpc.max_send_message_length", MAX_SENT_BYTES),
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.max_concurrent_streams", MAX_CALLS_OF_ONE_CONNECTION),
    ("grpc.keepalive_time_ms", KEEPALIVE_S * 1000),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_S * 1000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_INTERVAL_S * 1000),
    # Two processes on one port would share its calls by chance.
    ("grpc.so_reuseport", 0),
)


class BindError(Exception):
    """The address cannot be listened on."""


class TLSFiles(msgspec.Struct, frozen=True, kw_only=True):
    """PEM files; with ``client_ca`` clients must also have a certificate."""

    cert: str
    key: str
    client_ca: str | None = None


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """A service by its full name, how it is added to a server, and how it makes ready for the server's end."""

    name: str
    add: Callable[[grpc.aio.Server], None]
    # Ends its streams, which would otherwise go on until they are cut.
    end: Callable[[], None] | None = None


class AdminServer:
    """Serves operators and data planes. Nothing is served without credentials, health and reflection included.

    ``behind`` are interceptors that see only calls which the gatekeeper has let through.
    """

    def __init__(
        self,
        *,
        address: str,
        callers: Callers,
        bounds: CallBounds,
        services: Sequence[Service],
        tls: TLSFiles | None,
        behind: Sequence[grpc.aio.ServerInterceptor] = (),
    ) -> None:
        self._address = address
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(
            interceptors=[Gatekeeper(callers, bounds), *behind],
            options=_OPTIONS,
            maximum_concurrent_rpcs=MAX_CONCURRENT_CALLS,
        )
        for service in services:
            service.add(self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = [service.name for service in services]
        _add_reflection(self._server, [*names, health.SERVICE_NAME, reflection.SERVICE_NAME])
        self._names = ("", *names)
        self._ends = [service.end for service in services if service.end is not None]
        self._tls = tls

    async def start(self) -> int:
        """Listens and gives the port. Raises ``BindError``."""
        await self.report(serving=False)
        try:
            if self._tls is None:
                port = self._server.add_insecure_port(self._address)
            else:
                port = self._server.add_secure_port(self._address, _credentials(self._tls))
        except (RuntimeError, OSError) as fault:
            raise BindError(f"cannot listen on {self._address}") from fault
        if port == 0:
            raise BindError(f"cannot listen on {self._address}")
        await self._server.start()
        return port

    async def report(self, *, serving: bool) -> None:
        """Says through the health service whether calls are welcome."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in self._names:
            await self._health.set(name, status)

    async def stop(self, *, grace_s: float) -> None:
        """Refuses new calls, lets running ones end within ``grace_s``, then cuts them."""
        await self._health.enter_graceful_shutdown()
        for end in self._ends:
            end()
        await self._server.stop(grace_s)

    def __repr__(self) -> str:
        return f"AdminServer({self._address})"


def _add_reflection(server: grpc.aio.Server, names: Sequence[str]) -> None:
    """Reflection under its name of today too: the library has the older one, and the messages are the same."""
    reflection.enable_server_reflection(names, server)
    servicer = reflection.aio.ReflectionServicer(names)
    today = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    handler = grpc.method_handlers_generic_handler(REFLECTION_OF_TODAY, {"ServerReflectionInfo": today})
    server.add_generic_rpc_handlers((handler,))


def _credentials(files: TLSFiles) -> grpc.ServerCredentials:
    client_ca = None if files.client_ca is None else Path(files.client_ca).read_bytes()
    return grpc.ssl_server_credentials(
        [(Path(files.key).read_bytes(), Path(files.cert).read_bytes())],
        root_certificates=client_ca,
        require_client_auth=client_ca is not None,
    )
