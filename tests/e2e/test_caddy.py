"""Caddy with the very file of the compose stack, in front of a running gateway."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
import pytest

from deploy.local.ports import free_port
from tests.canaries import PROMPT
from tests.e2e.harness import Gateway, MockOllama, bearer, eventually, running

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parents[2]
HEADERS = {
    "strict-transport-security": "max-age=63072000; includeSubDomains; preload",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
}
RECORDS = 12
RECORD_DELAY_S = 0.2


class Proxy(NamedTuple):
    """Where Caddy listens, and who has signed for it."""

    netloc: str
    authority: Path


def ended(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(timeout=30)


@pytest.fixture(scope="module")
def backend() -> Iterator[MockOllama]:
    with running(MockOllama("behind-caddy", "--models", "llama3.2:latest")) as mock:
        yield mock


@pytest.fixture(scope="module")
def stack(backend, tmp_path_factory) -> Iterator[Gateway]:
    option = "--set=GATEWAY_TRUSTED_PROXIES=127.0.0.1"
    with running(Gateway(tmp_path_factory.mktemp("stack"), [backend], option)) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def api_key(stack) -> str:
    stack.tenant("behind-caddy")
    key = stack.key("behind-caddy")
    stack.wait_for_models(key, "llama3.2:latest")
    return key


@pytest.fixture(scope="module")
def proxy(stack, tmp_path_factory) -> Iterator[Proxy]:
    """Caddy as the compose stack runs it, on free ports, with a certificate of its own authority."""
    folder = tmp_path_factory.mktemp("caddy")
    port, health = free_port(), free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "XDG_DATA_HOME": str(folder),
        "GATEWAY_DOMAIN": "localhost",
        "ACME_EMAIL": "operator@gateway.example",
        "GATEWAY_HTTPS_PORT": str(port),
        "GATEWAY_HTTP_PORT": str(free_port()),
        "CADDY_HEALTH_PORT": str(health),
        "GATEWAY_UPSTREAM_HOST": "localhost",
        "GATEWAY_UPSTREAM_PORT": str(urlsplit(stack.url).port),
    }
    program = shutil.which("caddy", path=str(Path(sys.executable).parent)) or "caddy"
    file = str(ROOT / "deploy" / "caddy" / "Caddyfile")
    command = [program, "run", "--config", file, "--adapter", "caddyfile"]
    log = folder / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, env=environment, stderr=stderr, stdout=stderr)
    try:
        authority = folder / "caddy" / "pki" / "authorities" / "local" / "root.crt"
        eventually(lambda: authority.exists() and connects(port) and connects(health), what="Caddy")

        assert httpx.get(f"http://127.0.0.1:{health}/", trust_env=False).status_code == 200
        yield Proxy(netloc=f"localhost:{port}", authority=authority)
    finally:
        ended(process)
    assert b'"level":"error"' not in log.read_bytes()


@pytest.fixture(scope="module")
def caddy(proxy) -> Iterator[httpx.Client]:
    """A client of the proxy, which trusts Caddy's authority and nothing else."""
    context = ssl.create_default_context(cafile=str(proxy.authority))
    with httpx.Client(base_url=f"https://{proxy.netloc}", verify=context, timeout=20, trust_env=False) as client:
        eventually(lambda: is_alive(client), what="the gateway behind Caddy")
        yield client


def is_alive(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False


def connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


CHAT = {"model": "llama3.2", "messages": [{"role": "user", "content": PROMPT}], "stream": True}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat"])
def test_a_token_arrives_before_the_next_one_is_made(caddy, api_key, backend, path):
    backend.reset()
    backend.settings(tokens=RECORDS, record_delay_ms=RECORD_DELAY_S * 1000)
    arrivals = []
    sent_at_first: list[int] = []
    with caddy.stream("POST", path, json=CHAT, headers=bearer(api_key)) as reply:
        assert reply.status_code == 200
        for line in reply.iter_lines():
            if line:
                arrivals.append(time.monotonic())
            if len(arrivals) == 1:
                sent_at_first.append(backend.stats()["in_flight"])
    assert sent_at_first[0] == 1, "the model still speaks when the first token is here"
    gaps = [after - before for before, after in itertools.pairwise(arrivals[:RECORDS])]
    assert arrivals[RECORDS - 1] - arrivals[0] > (RECORDS - 2) * RECORD_DELAY_S
    assert sum(gap > RECORD_DELAY_S / 2 for gap in gaps) >= RECORDS - 3, gaps


@pytest.mark.parametrize("path", ["/healthz", "/v1/models", "/playground", "/nowhere"])
def test_every_reply_has_the_headers_and_names_no_server(caddy, api_key, path):
    reply = caddy.get(path, headers=bearer(api_key))
    assert {name: reply.headers.get(name) for name in HEADERS} == HEADERS
    assert {"server", "via", "x-powered-by"} & reply.headers.keys() == set()


def test_a_refusal_of_caddy_itself_has_the_headers_too(caddy):
    reply = caddy.get("/readyz")
    assert reply.status_code == 404
    assert {name: reply.headers.get(name) for name in HEADERS} == HEADERS
    assert "server" not in reply.headers


def test_a_client_that_leaves_is_noticed_behind_caddy(caddy, api_key, backend):
    backend.reset()
    backend.settings(tokens=2000, record_delay_ms=20)
    with caddy.stream("POST", "/api/chat", json=CHAT, headers=bearer(api_key)) as reply:
        next(reply.iter_lines())
    eventually(lambda: backend.stats()["in_flight"] == 0, timeout_s=20, what="an idle backend")
    assert backend.requests("/api/chat")[-1]["closed_by_peer_at_s"]


def test_the_ledger_has_the_address_that_caddy_saw_not_the_one_that_was_claimed(caddy, stack, api_key, backend):
    backend.reset()
    lie = {"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9", "X-Real-IP": "203.0.113.9"}
    reply = caddy.post("/api/chat", json={**CHAT, "stream": False}, headers=bearer(api_key) | lie)
    assert reply.status_code == 200
    query = "SELECT client_ip AS ip FROM gateway.audit_log WHERE request_id = $1"
    rows = eventually(lambda: stack.rows(query, reply.headers["x-request-id"]), what="the audit row")
    assert rows[0]["ip"] in ("127.0.0.1", "::1")


def test_a_body_beyond_the_cap_is_refused_in_the_dialect(caddy, api_key):
    # A connection each: where an answer overtakes its body, Caddy may take the rest of that for the next request of the
    # same connection, and refuse it with a 431 in plain text.
    headers = bearer(api_key) | {"Connection": "close"}
    for size in range(280_000, 2_000_000, 80_000):
        reply = caddy.post("/api/chat", content=b'{"model":"' + b"x" * size + b'"}', headers=headers)
        assert reply.status_code == 413, reply.text
    assert "error" in json.loads(reply.text)


def test_the_smoke_test_of_the_stack_passes(caddy, proxy, stack, tmp_path):
    """The script that CI runs against containers, with a `docker` that stands for them here."""
    stand_in = tmp_path / "docker"
    stand_in.write_text(
        "#!/bin/sh\n"
        f'case "$2" in cp) exec cp {proxy.authority} "$4";; esac\n'
        "while [ $1 != neuronetz-gateway ]; do shift; done; shift\n"
        f'exec {Path(sys.executable).with_name("neuronetz-gateway")} "$@"\n'
    )
    stand_in.chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "GATEWAY_DOMAIN": proxy.netloc,
        "GATEWAY_ADMIN_ADDRESS": stack.description["admin_address"],
        "GATEWAY_ADMIN_TOKEN": stack.description["admin_token"],
    }
    script = [str(ROOT / "deploy" / "smoke.sh")]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("served, streamed and revoked")
