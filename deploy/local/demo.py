"""What the demo has beyond a running stack: a tenant, a fresh key, and commands to paste."""

import json
import shlex
from http import HTTPStatus

import grpc

from deploy.local.errors import StackError
from deploy.local.programs import Program
from deploy.local.readiness import bearer, channel_to, get
from deploy.local.waiting import Pause, wait_until
from neuronetz.admin.v1 import key_pb2, key_pb2_grpc, limits_pb2, tenant_pb2, tenant_pb2_grpc

TENANT = "demo"
RPC_TIMEOUT_S = 10.0
USABLE_TIMEOUT_S = 30.0


def mint_key(control_plane: Program) -> str:
    """Make the tenant unless it exists, and mint a key that may use every model. Raises StackError if refused."""
    metadata = bearer(control_plane.environment["GATEWAY_ADMIN_TOKEN"])
    with channel_to(control_plane.address) as channel:
        try:
            _ensure_tenant(tenant_pb2_grpc.TenantServiceStub(channel), metadata)
            minted = key_pb2_grpc.KeyServiceStub(channel).CreateKey(
                key_pb2.CreateKeyRequest(tenant=TENANT, name="demo"), timeout=RPC_TIMEOUT_S, metadata=metadata
            )
        except grpc.RpcError as error:
            raise StackError(f"could not mint a key: {error.code().name}: {error.details()}") from None
    return minted.api_key


def first_model(data_plane: Program, key: str, *, pause: Pause) -> str:
    """Wait until the key works and models are listed; the name of one that can chat."""
    found: list[str] = []

    def listed() -> bool:
        status, body = get(data_plane, "/v1/models", {"Authorization": f"Bearer {key}"})
        found[:] = [model["id"] for model in json.loads(body)["data"]] if status == HTTPStatus.OK else []
        return bool(found)

    wait_until(listed, timeout_s=USABLE_TIMEOUT_S, what="the demo's key", pause=pause)
    return next((name for name in found if "embed" not in name), found[0])


def curls(url: str, *, key: str, model: str) -> dict[str, str]:
    """Five commands to paste, each under the sentence that says what it shows."""
    authorization = ("-H", f"Authorization: Bearer {key}")
    chat = {"model": model, "messages": [{"role": "user", "content": "Why is the sky blue?"}], "stream": True}
    commands = {
        "Chat in the OpenAI dialect, streamed as server-sent events": (
            "-sSN", f"{url}/v1/chat/completions", *authorization, *_json(chat)
        ),
        "Chat in the Ollama dialect, streamed as lines of JSON": (
            "-sSN", f"{url}/api/chat", *authorization, *_json(chat)
        ),
        "The models that this key may use": ("-sS", f"{url}/v1/models", *authorization),
        "No key: 401": ("-sSi", f"{url}/v1/models"),
        "Management of Ollama, even with a key: 403": (
            "-sSi", f"{url}/api/pull", *authorization, *_json({"model": model})
        ),
    }  # fmt: skip
    return {title: shlex.join(("curl", *arguments)) for title, arguments in commands.items()}


def _ensure_tenant(tenants: tenant_pb2_grpc.TenantServiceStub, metadata: tuple[tuple[str, str], ...]) -> None:
    request = tenant_pb2.CreateTenantRequest(name=TENANT, grants=limits_pb2.Grants(allow_all_models=True))
    try:
        tenants.CreateTenant(request, timeout=RPC_TIMEOUT_S, metadata=metadata)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
            raise


def _json(body: dict[str, object]) -> tuple[str, ...]:
    return ("-H", "Content-Type: application/json", "-d", json.dumps(body))
