"""Is a program ready? One probe per kind, each a single short attempt."""

import http.client
import json
from collections.abc import Callable

import grpc
from grpc_health.v1 import health_pb2

from deploy.local import ports
from deploy.local.programs import CONTROL, DATA, Program
from deploy.local.supervisor import Running

PROBE_TIMEOUT_S = 1.0


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """The gRPC metadata of a call with this token."""
    return (("authorization", f"Bearer {token}"),)


def channel_to(address: str) -> grpc.Channel:
    """A channel that goes through no proxy and knows nothing of earlier attempts."""
    return grpc.insecure_channel(
        address, options=[("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
    )


def is_ready(running: Running) -> bool:
    """Whether the program answers that it is ready. Raises StackError when it has ended instead."""
    running.raise_if_ended()
    return PROBES.get(running.program.role, _is_listening)(running)


def announced(running: Running) -> dict[str, str]:
    """The JSON object that the mock Ollama prints when it listens, empty before."""
    for line in running.output.splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict) and "url" in found:
            return found
    return {}


def get(program: Program, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    """Status and body of one GET request; status 0 when there is no answer."""
    connection = http.client.HTTPConnection(program.address, timeout=PROBE_TIMEOUT_S)
    try:
        connection.request("GET", path, headers=headers or {})
        reply = connection.getresponse()
        return reply.status, reply.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def _is_serving(running: Running) -> bool:
    if ports.is_free(running.program.port):  # cheaper to ask than a channel, which would wait before it tries again
        return False
    token = running.program.environment["GATEWAY_ADMIN_TOKEN"]
    with channel_to(running.program.address) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            reply = check(health_pb2.HealthCheckRequest(), timeout=PROBE_TIMEOUT_S, metadata=bearer(token))
        except grpc.RpcError:
            return False
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


def _is_answering(running: Running) -> bool:
    return get(running.program, "/readyz")[0] == http.client.OK


def _is_listening(running: Running) -> bool:
    return bool(announced(running))


PROBES: dict[str, Callable[[Running], bool]] = {CONTROL: _is_serving, DATA: _is_answering}
