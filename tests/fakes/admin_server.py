"""An admin API in this process: real gRPC over a real socket, with state in dictionaries instead of Postgres."""

from collections.abc import Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.message import Message

from neuronetz.admin.v1 import (
    backend_pb2,
    backend_pb2_grpc,
    key_pb2,
    key_pb2_grpc,
    limits_pb2,
    model_pb2,
    model_pb2_grpc,
    publication_pb2,
    tenant_pb2,
    tenant_pb2_grpc,
)

TOKEN = "test-admin-token"
API_KEY = "nz_" + "a" * 9 + "B" * 43 + "c" * 8
APPLIED = publication_pb2.PUBLICATION_APPLIED


class Recorder(grpc.ServerInterceptor):
    """Refuses callers without the token, and keeps the path and metadata of every call."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, str]]] = []

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        metadata = dict(details.invocation_metadata)
        self.calls.append((details.method, metadata))
        if metadata.get("authorization") != f"Bearer {TOKEN}":
            return grpc.unary_unary_rpc_method_handler(
                lambda _, context: context.abort(grpc.StatusCode.UNAUTHENTICATED, "no such token")
            )
        return continuation(details)


class Tenants(tenant_pb2_grpc.TenantServiceServicer):
    def __init__(self) -> None:
        self.known: dict[str, tenant_pb2.Tenant] = {}
        self.requests: list[Message] = []

    def CreateTenant(self, request, context):  # noqa: N802 - names of the proto
        self.requests.append(request)
        if not request.name:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "name: is required")
        if request.name in self.known:
            context.abort(grpc.StatusCode.ALREADY_EXISTS, f"tenant {request.name} exists")
        tenant = tenant_pb2.Tenant(
            id=f"id-{request.name}",
            name=request.name,
            status=tenant_pb2.TENANT_STATUS_ACTIVE,
            limits=request.limits,
            grants=request.grants,
            version=1,
        )
        if not request.validate_only:
            self.known[request.name] = tenant
        return tenant_pb2.CreateTenantResponse(tenant=tenant, publication=APPLIED)

    def ListTenants(self, request, context):  # noqa: N802
        self.requests.append(request)
        names = sorted(self.known)
        size = request.page_size or 2
        start = int(request.page_token or 0)
        following = str(start + size) if start + size < len(names) else ""
        rows = [self.known[name] for name in names[start : start + size]]
        return tenant_pb2.ListTenantsResponse(tenants=rows, next_page_token=following)

    def SuspendTenant(self, request, context):  # noqa: N802
        self.requests.append(request)
        if request.tenant not in self.known:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no tenant {request.tenant}")
        tenant = self.known[request.tenant]
        tenant.status = tenant_pb2.TENANT_STATUS_SUSPENDED
        return tenant_pb2.SuspendTenantResponse(tenant=tenant, publication=publication_pb2.PUBLICATION_PENDING)


class Keys(key_pb2_grpc.KeyServiceServicer):
    def __init__(self) -> None:
        self.requests: list[Message] = []
        self.refusal: tuple[grpc.StatusCode, str] | None = None

    def CreateKey(self, request, context):  # noqa: N802
        self.requests.append(request)
        return key_pb2.CreateKeyResponse(
            api_key="" if request.validate_only else API_KEY,
            prefix=API_KEY[:12],
            key=_key(request),
            publication=APPLIED,
        )

    def ListKeys(self, request, context):  # noqa: N802
        self.requests.append(request)
        return key_pb2.ListKeysResponse(keys=[_key(request)])

    def UpdateKey(self, request, context):  # noqa: N802
        self.requests.append(request)
        return key_pb2.UpdateKeyResponse(key=_key(request))

    def RotateKey(self, request, context):  # noqa: N802
        self.requests.append(request)
        return key_pb2.RotateKeyResponse(api_key=API_KEY, prefix=API_KEY[:12])

    def RevokeKey(self, request, context):  # noqa: N802
        self.requests.append(request)
        if self.refusal is not None:
            context.abort(*self.refusal)
        return key_pb2.RevokeKeyResponse(key=_key(request), publication=APPLIED)


class Backends(backend_pb2_grpc.BackendServiceServicer):
    def __init__(self) -> None:
        self.requests: list[Message] = []

    def AddBackend(self, request, context):  # noqa: N802
        self.requests.append(request)
        backend = backend_pb2.Backend(
            name=request.name, url=request.url, origin=backend_pb2.BACKEND_ORIGIN_DYNAMIC, token="***", healthy=True
        )
        return backend_pb2.AddBackendResponse(
            backend=backend, publication=APPLIED, environment_line="OLLAMA_BACKENDS=[]"
        )

    def RemoveBackend(self, request, context):  # noqa: N802
        self.requests.append(request)
        return backend_pb2.RemoveBackendResponse(publication=APPLIED)

    def ListBackends(self, request, context):  # noqa: N802
        return backend_pb2.ListBackendsResponse()

    def ProbeBackends(self, request, context):  # noqa: N802
        self.requests.append(request)
        bad = backend_pb2.ProbeResult(name="b", url="http://b:11434", problem="refused\x1b[31m the connection")
        good = backend_pb2.ProbeResult(name="a", url="http://a:11434", ok=True, latency_ms=12, models=3)
        return backend_pb2.ProbeBackendsResponse(results=[good, bad])


class Models(model_pb2_grpc.ModelServiceServicer):
    def __init__(self) -> None:
        self.requests: list[model_pb2.SetModelPolicyRequest] = []

    def ListModels(self, request, context):  # noqa: N802
        def model(name: str) -> model_pb2.Model:
            return model_pb2.Model(name=name, size_bytes=4_000_000_000, capabilities=["completion", "tools"])

        return model_pb2.ListModelsResponse(
            backends=[
                model_pb2.BackendModels(backend="gpu-1", models=[model("llama3.2:latest"), model("qwen3:8b")]),
                model_pb2.BackendModels(backend="gpu-2", models=[model("qwen3:8b")]),
            ],
            union_count=2,
            cached_count=2,
            policies=[model_pb2.ModelPolicy(model="qwen3:8b", num_ctx=8192, keep_alive="30m")],
        )

    def SetModelPolicy(self, request, context):  # noqa: N802
        self.requests.append(request)
        policy = model_pb2.ModelPolicy(model="qwen3:8b", num_ctx=8192, alias="fast:latest")
        policy.allowed_options.SetInParent()
        return model_pb2.SetModelPolicyResponse(policy=policy, publication=APPLIED)


class AdminServer:
    """The services, what they were asked, and where they listen."""

    def __init__(self) -> None:
        self.recorder = Recorder()
        # What no test asks for answers UNIMPLEMENTED, as the generated base does.
        self.tenants = Tenants()  # type: ignore[abstract]
        self.keys = Keys()  # type: ignore[abstract]
        self.backends = Backends()
        self.models = Models()  # type: ignore[abstract]
        self.address = ""

    @contextmanager
    def running(
        self, *, further: Sequence[grpc.GenericRpcHandler] = (), credentials: grpc.ServerCredentials | None = None
    ) -> Iterator["AdminServer"]:
        """Listen on a free port of loopback until the block ends."""
        with futures.ThreadPoolExecutor(max_workers=4) as pool:
            server = grpc.server(pool, interceptors=[self.recorder])
            tenant_pb2_grpc.add_TenantServiceServicer_to_server(self.tenants, server)
            key_pb2_grpc.add_KeyServiceServicer_to_server(self.keys, server)
            backend_pb2_grpc.add_BackendServiceServicer_to_server(self.backends, server)
            model_pb2_grpc.add_ModelServiceServicer_to_server(self.models, server)
            server.add_generic_rpc_handlers(further)
            if credentials is None:
                port = server.add_insecure_port("127.0.0.1:0")
            else:
                port = server.add_secure_port("127.0.0.1:0", credentials)
            self.address = f"127.0.0.1:{port}"
            server.start()
            try:
                yield self
            finally:
                server.stop(None).wait(5)


def _key(request: Any) -> key_pb2.Key:
    named = {field.name for field, _ in request.ListFields()}
    return key_pb2.Key(
        id="0c7f6a8e-0000-4000-8000-000000000001",
        prefix=API_KEY[:12],
        tenant_id="0c7f6a8e-0000-4000-8000-000000000002",
        tenant=request.tenant if "tenant" in named else "acme",
        name="prod-server-1",
        status=key_pb2.KEY_STATUS_ACTIVE,
        limits=request.limits if "limits" in named else limits_pb2.Limits(rpm=120),
        version=7,
    )
