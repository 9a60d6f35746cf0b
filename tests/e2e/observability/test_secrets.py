"""P13, A9.5: no secret and no prompt in anything that a running gateway writes, keeps, shows or sends.

A mixed load (replies, refusals, wrong keys, faults of backends, a revoked key, admin calls that fail) carries canaries.
Afterwards everything that came out is searched: logs of every process, metrics, traces, Redis' dump, Postgres' dump,
the bytes of every reply.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import psutil
import pytest

from deploy.local.binaries import postgres_bin
from neuronetz.admin.v1 import backend_pb2, backend_pb2_grpc
from tests.e2e.harness import bearer, eventually
from tests.e2e.observability.conftest import OTLP_SECRET

PROMPT = "canary-prompt-5d1c"
BACKEND_TOKEN = "canary-backend-token-19fe"
WRONG_ADMIN_TOKEN = "canary-admin-token-8c02-0123456789"
# Of a key: everything behind its public prefix.
PREFIX_LENGTH = 12


def load(gateway, mock, keys: list[str]) -> Iterator[bytes]:
    """Requests of every kind; gives the bytes of every reply."""
    good, revoked = keys
    chat = {"model": "llama3.2", "messages": [{"role": "user", "content": PROMPT}]}
    whole = chat | {"stream": False}
    openai = {"model": "llama3.2", "messages": chat["messages"], "stream": True, "max_tokens": 8}
    wrong = good[:-1] + ("a" if good[-1] != "a" else "b")
    guessed = good[:PREFIX_LENGTH] + revoked[PREFIX_LENGTH:]
    with httpx.Client(base_url=gateway.url, timeout=20, trust_env=False) as http:

        def post(path: str, body: object, key: str = good, **headers: str) -> bytes:
            reply = http.post(path, json=body, headers=bearer(key) | headers)
            return reply.content + repr(reply.headers.raw).encode()

        for body in (chat, whole):
            yield post("/api/chat", body)
            for key in (wrong, guessed, "nz_" + PROMPT, revoked):
                yield post("/api/chat", body, key)
        yield post("/v1/chat/completions", openai)
        yield post("/api/generate", {"model": "llama3.2", "prompt": PROMPT, "system": PROMPT})
        yield post("/api/embed", {"model": "nomic-embed-text", "input": [PROMPT]})
        yield post("/api/pull", {"model": PROMPT})
        yield post(f"/{PROMPT}", {PROMPT: PROMPT}, traceparent=PROMPT)
        yield post("/api/chat", chat | {"model": PROMPT})
        yield post("/api/chat", chat | {"options": {"temperature": PROMPT}})
        yield post("/api/chat", chat | {PROMPT: PROMPT})
        yield http.post("/api/chat", content=b'{"' + PROMPT.encode(), headers=bearer(good)).content
        for fault in (
            {"kind": "status", "status": 500},
            {"kind": "status", "status": 400},
            {"kind": "error_line_after_records", "records": 2},
            {"kind": "half_record"},
            {"kind": "reset_after_records", "records": 1},
        ):
            mock.script({"fault": fault, "match": {"path": "/api/chat"}, "times": 1})
            for body in (chat, whole):
                try:
                    yield post("/api/chat", body)
                except httpx.RemoteProtocolError:
                    yield b""
        with http.stream("POST", "/api/chat", json=chat, headers=bearer(good)) as left:
            # It leaves after the first bytes.
            next(left.iter_raw())


def admin_calls(gateway) -> None:
    """Calls that carry secrets, some of which fail."""
    backends = backend_pb2_grpc.BackendServiceStub(gateway.channel)
    added = backend_pb2.AddBackendRequest(
        name="closed", url="http://127.0.0.1:9", token=BACKEND_TOKEN, no_validate=True
    )
    metadata = (("authorization", f"Bearer {gateway.description['admin_token']}"),)
    backends.AddBackend(added, metadata=metadata, timeout=30)
    with pytest.raises(grpc.RpcError):
        backends.AddBackend(added, metadata=metadata, timeout=30)
    with pytest.raises(grpc.RpcError):
        backends.AddBackend(added, metadata=(("authorization", f"Bearer {WRONG_ADMIN_TOKEN}"),), timeout=30)
    backends.RemoveBackend(backend_pb2.RemoveBackendRequest(name="closed"), metadata=metadata, timeout=30)


def outputs(gateway, collector) -> Iterator[tuple[str, bytes]]:
    """Everything that came out, by where it came out."""
    for role, log in gateway.description["logs"].items():
        yield f"log of {role}", Path(log).read_bytes()
    for url in gateway.description["metrics_urls"]:
        yield f"metrics at {url}", httpx.get(url, trust_env=False).content
    yield "traces and metrics by OTLP", b"\n".join(collector.raw)
    gateway.redis.save()
    for dump in gateway.state.rglob("*.rdb"):
        yield f"Redis' dump {dump.name}", dump.read_bytes()
    for appended in gateway.state.rglob("*.aof"):
        yield f"Redis' log {appended.name}", appended.read_bytes()
    command = [postgres_bin() / "pg_dump", "--inserts", gateway.description["postgres_dsn"]]
    dumped = subprocess.run(command, capture_output=True, check=True, timeout=60)
    yield "Postgres' dump", dumped.stdout
    # But of the one that this test started, with the collector's token.
    for pid in [pid for role, pids in gateway.description["pids"].items() if role != "up" for pid in pids]:
        yield f"command line of {pid}", " ".join(psutil.Process(pid).cmdline()).encode()


def test_nothing_that_comes_out_holds_a_secret_or_a_prompt(watched, collector, mock):
    watched.tenant("canary")
    good, revoked = watched.key("canary"), watched.key("canary")
    watched.revoke(revoked)
    replies = list(load(watched, mock, [good, revoked]))
    admin_calls(watched)
    eventually(lambda: watched.undrained() == 0, timeout_s=20, what="an empty usage backlog")
    eventually(lambda: any("canary" in str(span.attributes) for _, span in collector.spans), what="spans of the load")
    environment = watched.dataplane_environment()
    secrets = {
        "an API key": good[PREFIX_LENGTH:],
        "a revoked key": revoked[PREFIX_LENGTH:],
        "the pepper": environment["GATEWAY_KEY_PEPPER"],
        "the sealing key": environment["GATEWAY_SEALING_KEY"],
        "the data plane's token": environment["GATEWAY_DATAPLANE_TOKEN"],
        "the admin token": watched.description["admin_token"],
        "a wrong admin token": WRONG_ADMIN_TOKEN,
        "a backend's token": BACKEND_TOKEN,
        "the collector's token": OTLP_SECRET,
        "a prompt": PROMPT,
    }
    kept = [*outputs(watched, collector), *((f"reply {number}", reply) for number, reply in enumerate(replies))]
    names = {name for name, _ in kept}
    assert {"Postgres' dump", "log of dataplane", "traces and metrics by OTLP"} <= names
    assert any(name.startswith("Redis' ") for name in names)
    dumped = dict(kept)["Postgres' dump"]
    assert good[:PREFIX_LENGTH].encode() in dumped, "the dump is one of this gateway"
    found = [(what, where) for where, output in kept for what, secret in secrets.items() if secret.encode() in output]
    assert found == []
