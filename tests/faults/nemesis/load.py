"""Who asks while faults happen: tenants with and without budgets and narrow limits, clients that leave, revocations."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import threading
from dataclasses import dataclass
from typing import Self

import grpc

from neuronetz.admin.v1 import key_pb2, key_pb2_grpc, publication_pb2
from tests.e2e.harness import Gateway
from tests.faults.nemesis.conversation import body_of, converse
from tests.faults.nemesis.history import History

MODELS = ("llama3.2:latest", "qwen3:8b")
LEAVES_SHARE, STREAM_SHARE = 0.15, 0.6
REST_S = 0.25
REVOKE_EVERY_S = 2.5
RPC_TIMEOUT_S = 6.0


@dataclass(slots=True, kw_only=True)
class Tenant:
    """Who asks: a tenant with its limits and the key that it uses now; if it ``churns``, each is soon revoked."""

    name: str
    limits: dict[str, int]
    clients: int
    churns: bool = False
    api_key: str = ""


def tenants() -> list[Tenant]:
    """Those of every run. What a budget allows is spent in the middle of a run of half a minute."""
    return [
        Tenant(name="ample", limits={}, clients=4),
        Tenant(name="narrow", limits={"concurrent": 2}, clients=4),
        Tenant(name="poor", limits={"budget_total": 6000}, clients=3),
        Tenant(name="churning", limits={}, clients=3, churns=True),
    ]


class Load:
    """All clients, in a thread of their own, from the start of the block to its end."""

    def __init__(self, gateway: Gateway, tenants: list[Tenant], history: History, *, seed: int, marker: str) -> None:
        self._gateway = gateway
        self._tenants = tenants
        self._history = history
        self._source = random.Random(seed)
        self._marker = marker
        self._count = 0
        self._credentials = (("authorization", f"Bearer {gateway.description['admin_token']}"),)
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=lambda: asyncio.run(self._run()))]
        self._threads += [threading.Thread(target=self._churn, args=(one,)) for one in tenants if one.churns]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for tenant in self._tenants:
                for _ in range(tenant.clients):
                    tasks.create_task(self._keep_asking(tenant))

    async def _keep_asking(self, tenant: Tenant) -> None:
        source = random.Random(self._source.random())
        while not self._stopping.is_set():
            await self._ask(tenant, source)
            await asyncio.sleep(REST_S * source.uniform(0.2, 1.8))

    async def _ask(self, tenant: Tenant, source: random.Random) -> None:
        self._count += 1
        nonce = f"{self._marker}-{self._count:06d}"
        plane, api_key = source.randrange(len(self._gateway.urls)), tenant.api_key
        dialect, stream = source.choice(("ollama", "openai")), source.random() < STREAM_SHARE
        body = body_of(dialect, nonce, model=source.choice(MODELS), stream=stream, num_predict=source.choice((24, 64)))
        self._history.add(
            "asked", nonce=nonce, tenant=tenant.name, key=api_key[:12], plane=f"dataplane-{plane + 1}",
            dialect=dialect, stream=stream,
        )  # fmt: skip
        leaves = source.uniform(0.0, 0.8) if source.random() < LEAVES_SHARE else None
        heard = await converse(self._gateway.urls[plane], api_key, dialect, body, leaves_after_s=leaves)
        self._history.add(
            "answered", nonce=nonce, status=heard.status, request_id=heard.request_id, end=heard.end, said=heard.said,
            is_done=heard.is_done, errors=heard.errors,
        )  # fmt: skip

    def _churn(self, tenant: Tenant) -> None:
        """A new key, then the old one's end, over each control plane in turn; what fails is tried the next time."""
        with contextlib.ExitStack() as stack:
            addresses = self._gateway.description["admin_addresses"]
            channels = [stack.enter_context(grpc.insecure_channel(address)) for address in addresses]
            for channel in itertools.cycle(channels):
                if self._stopping.wait(REVOKE_EVERY_S):
                    return
                with contextlib.suppress(grpc.RpcError):
                    old, tenant.api_key = tenant.api_key, self._mint(channel, tenant)
                    # Clients use the new one from now on, and a few requests with the old one are on their way.
                    self._end(channel, old)

    def _mint(self, channel: grpc.Channel, tenant: Tenant) -> str:
        request = key_pb2.CreateKeyRequest(tenant=tenant.name, name="nemesis")
        answer = key_pb2_grpc.KeyServiceStub(channel).CreateKey(
            request, metadata=self._credentials, timeout=RPC_TIMEOUT_S
        )
        self._gateway.minted.append(answer.api_key)
        self._history.add("minted", key=answer.api_key[:12], is_pending=_is_pending(answer.publication))
        return str(answer.api_key)

    def _end(self, channel: grpc.Channel, api_key: str) -> None:
        self._history.add("revoking", key=api_key[:12])
        request = key_pb2.RevokeKeyRequest(prefix=api_key[:12])
        answer = key_pb2_grpc.KeyServiceStub(channel).RevokeKey(
            request, metadata=self._credentials, timeout=RPC_TIMEOUT_S
        )
        self._history.add("revoked", key=api_key[:12], is_pending=_is_pending(answer.publication))


def _is_pending(publication: int) -> bool:
    return publication != publication_pb2.PUBLICATION_APPLIED
