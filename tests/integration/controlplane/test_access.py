"""Who may call: every role times every RPC, and nobody without credentials."""

from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool, empty_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from controlplane.core.roles import Role
from controlplane.rpc.authz import RULES
from tests.integration.controlplane.conftest import (
    ADMIN_TOKEN,
    DATAPLANE_TOKEN,
    OPERATOR_TOKEN,
    VIEWER_TOKEN,
    Running,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOKENS = {
    Role.ADMIN: ADMIN_TOKEN,
    Role.OPERATOR: OPERATOR_TOKEN,
    Role.VIEWER: VIEWER_TOKEN,
    Role.DATAPLANE: DATAPLANE_TOKEN,
}
READS = {
    "GetTenant",
    "ListTenants",
    "GetKey",
    "ListKeys",
    "ListBackends",
    "ListModels",
    "GetModel",
    "ServerReflectionInfo",
    "ListReplicas",
    "WatchFleet",
    "GetUsage",
    "GetBudgets",
    "QueryAudit",
    "TailAudit",
    "WhoAmI",
}
HEALTH = {"Check", "List", "Watch"}


def expected_roles(method: str) -> set[Role]:
    service, name = method.rsplit("/", 1)
    if service == "/neuronetz.state.v1.StateService":
        return {Role.DATAPLANE}
    if name in HEALTH:
        return set(Role)
    if name == "ListOperatorAudit":
        return {Role.ADMIN}
    if name == "Verify":
        return {Role.DATAPLANE, Role.ADMIN}
    return {Role.VIEWER, Role.OPERATOR, Role.ADMIN} if name in READS else {Role.OPERATOR, Role.ADMIN}


async def status_of(gateway: Running, method: str, metadata: tuple[tuple[str, str], ...]) -> grpc.StatusCode:
    """The status of a call with an empty request, whatever kind of RPC it is."""
    # A tail of a quiet log says nothing until somebody ends it.
    timeout_s = 0.5 if method.endswith("/TailAudit") else 5
    call = gateway.channel.stream_stream(
        method, request_serializer=empty_pb2.Empty.SerializeToString, response_deserializer=bytes
    )(iter([empty_pb2.Empty()]), metadata=metadata, timeout=timeout_s)
    try:
        async for _ in call:
            break
    except grpc.aio.AioRpcError:
        pass
    else:
        if not call.done():
            call.cancel()
            return grpc.StatusCode.OK
    return await call.code()


@pytest.mark.parametrize("method", sorted(RULES))
async def test_each_role_may_call_what_it_should_and_nothing_else(shared_gateway, method):
    for role, token in TOKENS.items():
        status = await status_of(shared_gateway, method, (("authorization", f"Bearer {token}"),))
        denied = status is grpc.StatusCode.PERMISSION_DENIED
        assert denied == (role not in expected_roles(method)), (role, status)
        assert status is not grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("authorization", ""),),
        (("authorization", "Bearer "),),
        (("authorization", "Bearer wrong-token-but-long-enough"),),
        (("authorization", ADMIN_TOKEN),),
        (("authorization", f"Basic {ADMIN_TOKEN}"),),
        (("authorization", f"Bearer {ADMIN_TOKEN}"), ("authorization", f"Bearer {ADMIN_TOKEN}")),
    ],
)
async def test_without_credentials_nothing_is_served(shared_gateway, metadata):
    for method in [*RULES, "/neuronetz.admin.v1.TenantService/DropTenant"]:
        assert await status_of(shared_gateway, method, metadata) is grpc.StatusCode.UNAUTHENTICATED, method


async def test_what_is_not_in_the_table_is_denied_to_everybody(shared_gateway):
    for method in ("/neuronetz.admin.v1.TenantService/DropTenant", "/x.Y/Z"):
        status = await status_of(shared_gateway, method, (("authorization", f"Bearer {ADMIN_TOKEN}"),))
        assert status is grpc.StatusCode.PERMISSION_DENIED


async def test_every_registered_method_is_in_the_table_and_nothing_more(shared_gateway):
    pool = descriptor_pool.Default()
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(shared_gateway.channel)
    metadata = (("authorization", f"Bearer {ADMIN_TOKEN}"),)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    call = stub.ServerReflectionInfo(iter([request]), metadata=metadata, timeout=5)
    (answer,) = [reply async for reply in call]
    names = [service.name for service in answer.list_services_response.service]
    registered = {f"/{name}/{method.name}" for name in names for method in pool.FindServiceByName(name).methods}
    # The same reflection under its name of today.
    assert registered == {method for method in RULES if not method.startswith("/grpc.reflection.v1.")}


async def test_health_says_serving_per_service(shared_gateway):
    stub: Any = health_pb2_grpc.HealthStub(shared_gateway.channel)
    for service in ("", "neuronetz.admin.v1.KeyService", "neuronetz.state.v1.KeyVerifier"):
        answer = await shared_gateway.call(
            stub.Check, health_pb2.HealthCheckRequest(service=service), token=DATAPLANE_TOKEN
        )
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_request_beyond_the_size_is_refused(shared_gateway):
    from neuronetz.admin.v1 import tenant_pb2

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await shared_gateway.call(
            shared_gateway.tenants.GetTenant, tenant_pb2.GetTenantRequest(tenant="x" * 2 * 1024 * 1024)
        )
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_reflection_answers_under_both_of_its_names(shared_gateway):
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    answers = []
    for version in ("v1", "v1alpha"):
        call = shared_gateway.channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )(iter([request]), metadata=(("authorization", f"Bearer {VIEWER_TOKEN}"),), timeout=5)
        answers += [reply async for reply in call]
    assert len(answers) == 2
    assert answers[0] == answers[1]
