"""One gateway for the folder, with short deadlines and an environment full of proxies that nobody may use.

After each test its worker is the one that started, has no request left in flight, and serves a client that does
nothing wrong.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.edge.wire import (
    AUTH_FAILURES_PER_MINUTE,
    BODY_TIMEOUT_S,
    TRUSTED_PROXY,
    WRITE_STALL_TIMEOUT_S,
    Wire,
    ask,
    chat_body,
    request,
)
from tests.e2e.harness import Gateway, MockOllama, eventually, running

PROXY_VARIABLES = (
    "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "grpc_proxy",
)  # fmt: skip
NETRC = "machine 127.0.0.1 login canary password canary\ndefault login canary password canary\n"


@pytest.fixture(scope="package")
def trap() -> Iterator[socket.socket]:
    """What the proxy variables point to: a port that nobody may ever connect to."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


@pytest.fixture(scope="package")
def backend() -> Iterator[MockOllama]:
    with running(MockOllama("edge")) as mock:
        yield mock


@pytest.fixture(scope="package")
def gateway(backend: MockOllama, trap: socket.socket, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    home = tmp_path_factory.mktemp("edge")
    netrc = home / "netrc"
    netrc.write_text(NETRC)
    options = [f"--set={name}=http://127.0.0.1:{trap.getsockname()[1]}" for name in PROXY_VARIABLES]
    options += [f"--set=NETRC={netrc}", f"--set=SSL_CERT_FILE={home / 'none.pem'}", "--set=PLAYGROUND_ENABLED=true"]
    options += [
        f"--set=GATEWAY_BODY_TIMEOUT_S={BODY_TIMEOUT_S}",
        f"--set=GATEWAY_WRITE_STALL_TIMEOUT_S={WRITE_STALL_TIMEOUT_S}",
        f"--set=AUTH_FAILURE_RATE_LIMIT_PER_IP_PER_MIN={AUTH_FAILURES_PER_MINUTE}",
        f"--set=GATEWAY_TRUSTED_PROXIES={TRUSTED_PROXY}",
    ]
    with running(Gateway(Path(home / "state"), [backend], *options)) as gateway:
        yield gateway


@pytest.fixture(scope="package")
def api_key(gateway: Gateway) -> str:
    """A key that may use every model."""
    gateway.tenant("edge")
    key = gateway.key("edge")
    gateway.wait_for_models(key, "llama3.2:latest", "nomic-embed-text:latest")
    return key


@pytest.fixture(scope="package")
def worker(gateway: Gateway) -> psutil.Process:
    """The worker that serves at the start of the folder, and has to at its end."""
    return psutil.Process(gateway.worker(0))


@pytest.fixture
def mock(backend: MockOllama) -> MockOllama:
    """The backend, without scripts, its records forgotten."""
    backend.reset()
    return backend


@pytest.fixture
def wire(gateway: Gateway) -> Iterator[Wire]:
    """One connection."""
    with Wire(gateway.url) as wire:
        yield wire


@pytest.fixture(autouse=True)
def unharmed(gateway: Gateway, api_key: str, worker: psutil.Process, mock: MockOllama) -> Iterator[None]:
    """The worker survives the test, and serves."""
    yield
    mock.reset()
    assert worker.is_running()
    assert worker.status() != psutil.STATUS_ZOMBIE
    assert ask(gateway.url, request(api_key, body=chat_body())).status == 200
    eventually(lambda: gateway.open_leases() == 0, what="that no lease is left")
