"""Somebody who has none of our files walks the admin API by reflection alone, from a tenant to its revoked key."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from typing import Any, Protocol

import grpc
import httpx
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha import reflection_pb2

from tests.canaries import PROMPT
from tests.e2e.harness import bearer, eventually

BUF = os.environ.get("GATEWAY_BUF") or shutil.which("buf")
ADMIN = "neuronetz.admin.v1"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"


class Client(Protocol):
    def services(self) -> set[str]: ...

    def call(self, method: str, request: dict[str, Any]) -> dict[str, Any]: ...


class Reflecting:
    """A generic client: it knows reflection, and of the gateway an address and a token."""

    def __init__(self, channel: grpc.Channel, token: str) -> None:
        self._channel = channel
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._pool = descriptor_pool.DescriptorPool()
        self._known: set[str] = set()

    def services(self) -> set[str]:
        answer = self._reflect(reflection_pb2.ServerReflectionRequest(list_services=""))
        return {service.name for service in answer.list_services_response.service}

    def call(self, method: str, request: dict[str, Any]) -> dict[str, Any]:
        name, _, rpc = f"{ADMIN}.{method}".rpartition("/")
        self._learn(reflection_pb2.ServerReflectionRequest(file_containing_symbol=name))
        described = self._pool.FindServiceByName(name).methods_by_name[rpc]
        message: Any = message_factory.GetMessageClass(described.input_type)()
        invoke: Any = self._channel.unary_unary(
            f"/{name}/{rpc}",
            request_serializer=lambda sent: sent.SerializeToString(),
            response_deserializer=message_factory.GetMessageClass(described.output_type).FromString,
        )
        answer = invoke(json_format.ParseDict(request, message), metadata=self._metadata, timeout=20)
        return json_format.MessageToDict(answer)

    def _learn(self, request: reflection_pb2.ServerReflectionRequest) -> None:
        for raw in self._reflect(request).file_descriptor_response.file_descriptor_proto:
            file = descriptor_pb2.FileDescriptorProto.FromString(raw)
            if file.name in self._known:
                continue
            self._known.add(file.name)
            for needed in file.dependency:
                self._learn(reflection_pb2.ServerReflectionRequest(file_by_filename=needed))
            self._pool.Add(file)

    def _reflect(self, request: reflection_pb2.ServerReflectionRequest) -> reflection_pb2.ServerReflectionResponse:
        invoke: Any = self._channel.stream_stream(
            REFLECTION,
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        (answer,) = invoke(iter([request]), metadata=self._metadata, timeout=20)
        assert not answer.HasField("error_response"), answer.error_response
        found: reflection_pb2.ServerReflectionResponse = answer
        return found


class Buf:
    """``buf curl``: a program of others."""

    def __init__(self, address: str, token: str) -> None:
        header = f"authorization: Bearer {token}"
        self._url = f"http://{address}"
        self._command = [str(BUF), "curl", "--http2-prior-knowledge", "--protocol", "grpc", "-H", header]
        self._command += ["--reflect-header", header]

    def services(self) -> set[str]:
        return set(self._run("--list-services", self._url).split())

    def call(self, method: str, request: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(
            self._run("-d", json.dumps(request), f"{self._url}/{ADMIN}.{method}") or "{}"
        )
        return answer

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._command, *arguments], capture_output=True, text=True, check=False, timeout=60, cwd="/"
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(params=["generic", "buf curl"])
def client(request, gateway) -> Iterator[Client]:
    address, token = gateway.description["admin_address"], gateway.description["admin_token"]
    if request.param == "generic":
        with grpc.insecure_channel(address) as channel:
            yield Reflecting(channel, token)
        return
    if BUF is None:
        pytest.skip("buf is not installed")
    yield Buf(address, token)


def test_tenant_key_request_usage_and_revocation_by_reflection_alone(gateway, client):
    name = f"walk-{uuid.uuid4().hex[:8]}"
    assert {f"{ADMIN}.TenantService", f"{ADMIN}.KeyService", f"{ADMIN}.UsageService"} <= client.services()

    grants = {"allowAllModels": True}
    created = client.call("TenantService/CreateTenant", {"name": name, "grants": grants, "limits": {"rpm": 100}})
    assert created["publication"] == "PUBLICATION_APPLIED"
    minted = client.call("KeyService/CreateKey", {"tenant": name, "name": "walk"})
    gateway.wait_for_models(minted["apiKey"], "llama3.2:latest")

    def chat() -> httpx.Response:
        body = {"model": "llama3.2", "messages": [{"role": "user", "content": PROMPT}], "stream": False}
        headers = bearer(minted["apiKey"])
        return httpx.post(f"{gateway.url}/api/chat", json=body, headers=headers, timeout=20, trust_env=False)

    reply = chat()
    assert reply.status_code == 200
    tokens = reply.json()["prompt_eval_count"] + reply.json()["eval_count"]

    def counted() -> bool:
        rows = client.call("UsageService/GetUsage", {"tenant": name}).get("rows", [])
        return sum(int(row.get("totalTokens", 0)) for row in rows) == tokens

    eventually(counted, timeout_s=20, what=f"usage of {tokens} tokens")
    revoked = client.call("KeyService/RevokeKey", {"prefix": minted["prefix"], "reason": "the walk is over"})
    assert revoked["key"]["status"] == "KEY_STATUS_REVOKED"
    assert chat().status_code == 401
