"""Several backends and policies of models, as clients and backends see them. On a gateway of its own."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import httpx
import pytest

from neuronetz.admin.v1 import backend_pb2, backend_pb2_grpc, model_pb2, model_pb2_grpc
from tests.canaries import PROMPT
from tests.e2e.accounts import budget_of, scope_ids
from tests.e2e.harness import Gateway, MockOllama, bearer, body_of, eventually, running

SHARED = "llama3.2:latest"
CHAT = {"model": "llama3.2", "messages": [{"role": "user", "content": PROMPT}], "stream": False}


class Stack:
    """A gateway in front of two backends of equal priority, of which one has three times the weight."""

    def __init__(self, gateway: Gateway, light: MockOllama, heavy: MockOllama) -> None:
        self.gateway, self.light, self.heavy = gateway, light, heavy
        self._metadata = (("authorization", f"Bearer {gateway.description['admin_token']}"),)
        self._models = model_pb2_grpc.ModelServiceStub(gateway.channel)
        self._backends = backend_pb2_grpc.BackendServiceStub(gateway.channel)
        gateway.tenant("everything")
        self.key = gateway.key("everything")
        gateway.wait_for_models(self.key, SHARED, "light:1b", "heavy:1b")

    def set_policy(self, model: str, *, allowed: tuple[str, ...] | None = None, **fields: Any) -> None:
        options = None if allowed is None else model_pb2.OptionNames(names=allowed)
        request = model_pb2.SetModelPolicyRequest(model=model, allowed_options=options, **fields)
        self._models.SetModelPolicy(request, metadata=self._metadata, timeout=30)

    def clear_policies(self) -> None:
        listed = self._models.ListModels(model_pb2.ListModelsRequest(), metadata=self._metadata, timeout=30)
        for policy in listed.policies:
            request = model_pb2.ClearModelPolicyRequest(model=policy.model)
            self._models.ClearModelPolicy(request, metadata=self._metadata, timeout=30)

    def add(self, name: str, url: str, **fields: Any) -> None:
        request = backend_pb2.AddBackendRequest(name=name, url=url, **fields)
        self._backends.AddBackend(request, metadata=self._metadata, timeout=30)

    def remove(self, name: str) -> None:
        request = backend_pb2.RemoveBackendRequest(name=name)
        self._backends.RemoveBackend(request, metadata=self._metadata, timeout=30)

    def post(self, path: str, body: dict[str, Any], key: str = "") -> httpx.Response:
        url, headers = self.gateway.url + path, bearer(key or self.key)
        return httpx.post(url, json=body, headers=headers, timeout=20, trust_env=False)

    def listed(self, key: str = "") -> list[str]:
        reply = httpx.get(f"{self.gateway.url}/api/tags", headers=bearer(key or self.key), timeout=20, trust_env=False)
        return [model["name"] for model in reply.json()["models"]]

    def upstream(self, path: str | None = None) -> list[dict[str, Any]]:
        """Bodies as the two mocks got them."""
        return [body_of(request) for mock in (self.light, self.heavy) for request in mock.requests(path)]


@pytest.fixture(scope="module")
def running_stack(tmp_path_factory):
    with (
        running(MockOllama("light", "--models", f"{SHARED},light:1b")) as light,
        running(MockOllama("heavy", "--models", f"{SHARED},heavy:1b")) as heavy,
    ):
        backends = json.dumps(
            [
                {"name": "light", "url": light.url, "priority": 0},
                {"name": "heavy", "url": heavy.url, "priority": 0, "weight": 3},
            ]
        )
        place = tmp_path_factory.mktemp("policy")
        with running(Gateway(place, [], f"--set=OLLAMA_BACKENDS={backends}")) as gateway:
            yield Stack(gateway, light, heavy)


@pytest.fixture
def stack(running_stack):
    running_stack.light.reset()
    running_stack.heavy.reset()
    yield running_stack
    running_stack.clear_policies()
    # What is published over the watch is there at once, not in the same moment.
    eventually(lambda: not {"fast:latest", "other:latest"} & set(running_stack.listed()), what="no alias")


def until_applied(stack: Stack, model: str) -> None:
    eventually(lambda: model in stack.listed(), timeout_s=15, what=f"the alias {model}")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/chat", CHAT),
        ("/api/generate", {"model": "llama3.2", "prompt": PROMPT, "stream": False}),
        ("/api/embed", {"model": "llama3.2", "input": PROMPT}),
        ("/v1/chat/completions", {"model": "llama3.2", "messages": CHAT["messages"]}),
        ("/v1/embeddings", {"model": "llama3.2", "input": PROMPT}),
    ],
)
def test_a_backend_gets_what_the_policy_says(stack, path, body):
    stack.set_policy("llama3.2", num_ctx=8192, keep_alive="30m", alias="fast")
    until_applied(stack, "fast:latest")
    client = {"options": {"num_ctx": 1_000_000}, "keep_alive": -1}
    assert stack.post(path, {**body, **client}).status_code == 200
    [sent] = stack.upstream()
    assert (sent["options"]["num_ctx"], sent["keep_alive"], sent["model"]) == (8192, "30m", SHARED)


def test_the_cap_is_sent_upstream_and_told_the_client(stack):
    stack.set_policy("llama3.2", max_num_predict=7, alias="fast")
    until_applied(stack, "fast:latest")
    wanted = {100: "7", 7: None, 3: None}
    for asked, header in wanted.items():
        reply = stack.post("/api/chat", {**CHAT, "options": {"num_predict": asked}})
        assert reply.headers.get("x-gateway-num-predict") == header
        assert reply.json()["eval_count"] == min(asked, 7)
    assert sorted(sent["options"]["num_predict"] for sent in stack.upstream()) == [3, 7, 7]


def test_what_clients_may_not_set_is_dropped_and_named(stack):
    stack.set_policy("llama3.2", allowed=("temperature",), alias="fast")
    until_applied(stack, "fast:latest")
    asked = {"options": {"temperature": 0.5, "top_k": 3, "num_gpu": 1}, "format": "json", "unheard": 1}
    reply = stack.post("/api/chat", {**CHAT, **asked})
    assert reply.headers["x-gateway-ignored"] == "num_gpu, top_k, format, unknown=1"
    [sent] = stack.upstream()
    assert sent["options"] == {"temperature": 0.5, "num_predict": 4096}
    assert "format" not in sent


@pytest.mark.parametrize("granted", [SHARED, "fast"])
def test_an_alias_is_listed_asked_for_and_granted_and_the_reply_says_what_was_written(stack, granted):
    stack.set_policy("llama3.2", alias="fast")
    tenant = f"granted-{granted.replace(':', '-').replace('.', '-')}"
    stack.gateway.tenant(tenant, models=[granted])
    key = stack.gateway.key(tenant)
    eventually(lambda: stack.listed(key) == ["fast:latest", SHARED], timeout_s=15, what="the listing")
    native, compatible = (
        stack.post("/api/chat", {**CHAT, "model": "Fast"}, key),
        stack.post("/v1/chat/completions", {"model": "fast:latest", "messages": CHAT["messages"]}, key),
    )
    assert (native.json()["model"], compatible.json()["model"]) == ("Fast", "fast:latest")
    assert [sent["model"] for sent in stack.upstream()] == [SHARED, SHARED]
    shown = httpx.get(f"{stack.gateway.url}/v1/models/fast", headers=bearer(key), timeout=20, trust_env=False)
    assert shown.json()["id"] == "fast:latest"
    query = "SELECT DISTINCT model FROM gateway.audit_log WHERE key_id = $1::uuid AND endpoint <> '/api/tags'"
    key_id = scope_ids(stack.gateway, tenant, key)["key"]
    eventually(
        lambda: {row["model"] for row in stack.gateway.rows(query, key_id)} >= {SHARED}, what="audit by the real name"
    )
    assert {row["model"] for row in stack.gateway.rows(query, key_id)} <= {SHARED, ""}


def test_an_alias_opens_nothing_that_is_not_granted(stack):
    stack.set_policy("light:1b", alias="other")
    until_applied(stack, "other:latest")
    stack.gateway.tenant("narrow", models=[SHARED])
    key = stack.gateway.key("narrow")
    assert stack.listed(key) == [SHARED]
    assert stack.post("/api/chat", {**CHAT, "model": "other"}, key).status_code == 403
    assert stack.post("/api/chat", {**CHAT, "model": "other"}).status_code == 200
    stack.clear_policies()
    eventually(lambda: stack.post("/api/chat", {**CHAT, "model": "other"}).status_code == 403, what="the alias's end")


def test_a_budget_reserves_the_context_of_the_policy(stack):
    stack.set_policy("llama3.2", num_ctx=512, max_num_predict=16, alias="fast")
    until_applied(stack, "fast:latest")
    stack.gateway.tenant("reserving", budget_total=512 + 16)
    key = stack.gateway.key("reserving")
    long = {**CHAT, "messages": [{"role": "user", "content": "word " * 2000}]}
    assert stack.post("/api/chat", long, key).status_code == 200
    tenant_id = scope_ids(stack.gateway, "reserving", key)["tenant"]
    eventually(lambda: budget_of(stack.gateway, "tenant", tenant_id).used > 0, what="the charge")
    assert budget_of(stack.gateway, "tenant", tenant_id).used <= 512 + 16


def test_backends_of_equal_priority_share_by_weight(stack):
    for mock in (stack.light, stack.heavy):
        mock.settings(tokens=24, record_delay_ms=40)
    with ThreadPoolExecutor(40) as pool:
        replies = list(pool.map(lambda _: stack.post("/api/chat", CHAT).status_code, range(40)))
    assert Counter(replies) == {200: 40}
    shares = (len(stack.light.requests("/api/chat")), len(stack.heavy.requests("/api/chat")))
    assert abs(shares[1] - 30) <= 3, shares


def test_a_backend_serves_as_soon_as_it_is_added_and_gets_nothing_once_it_is_removed(stack):
    late = {**CHAT, "model": "late:1b"}
    assert stack.post("/api/chat", late).status_code == 403
    with running(MockOllama("late", "--models", f"late:1b,{SHARED}")) as mock:
        stack.add("late", mock.url)
        eventually(lambda: stack.post("/api/chat", late).status_code == 200, timeout_s=15, what="the new backend")
        # Static backends come first.
        assert stack.post("/api/chat", CHAT).status_code == 200
        assert {body_of(request)["model"] for request in mock.requests()} == {"late:1b"}
        stack.remove("late")
        eventually(lambda: stack.post("/api/chat", late).status_code == 403, timeout_s=15, what="its end")
        mock.forget()
        for _ in range(10):
            assert stack.post("/api/chat", CHAT).status_code == 200
            assert stack.post("/api/chat", late).status_code == 403
        assert mock.requests() == []


@pytest.mark.parametrize("name", ["light", "heavy"])
def test_a_backend_of_the_environment_is_not_changed_at_run_time(stack, name):
    for change in (lambda: stack.add(name, stack.light.url, replace=True), lambda: stack.remove(name)):
        with pytest.raises(grpc.RpcError) as caught:
            change()
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
