"""Thousands of connections that want nothing, or want it slowly, beside clients that are served meanwhile (A1.10)."""

from __future__ import annotations

import contextlib
import resource
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.e2e.edge.wire import Wire, ask, chat_body, request
from tests.e2e.harness import eventually

IDLE, HALF_HEADS, HALF_BODIES, REFUSED = 2000, 500, 300, 200
CONNECTIONS = IDLE + HALF_HEADS + HALF_BODIES + REFUSED
SERVED = 150
# A head has five seconds, a body two.
ALL_ENDED_WITHIN_S = 40.0
# Who waited behind a head would take longer.
SLOWEST_S = 4.0
DESCRIPTOR_SLACK = 8


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Room for the sockets of the attack."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def has_ended(connection: socket.socket) -> bool:
    """Whether the server has ended it; what it said before is read over."""
    with contextlib.suppress(ConnectionResetError):
        try:
            while connection.recv(4096):
                pass
        except BlockingIOError:
            return False
    return True


def attack(url: str, api_key: str) -> list[socket.socket]:
    """Opens all the connections and sends what each has to say."""
    address = urlsplit(url).hostname, urlsplit(url).port
    half_head = request(api_key)[:-2]
    half_body = request(api_key, b"Content-Length: 100000") + b"{"
    refused = request("nz_none", b"Content-Length: 100000") + b"{"
    connections = []
    for data, count in ((b"", IDLE), (half_head, HALF_HEADS), (half_body, HALF_BODIES), (refused, REFUSED)):
        for _ in range(count):
            connection = socket.create_connection(address, timeout=60)
            connection.sendall(data)
            connection.setblocking(False)
            connections.append(connection)
    return connections


def durations_s(url: str, api_key: str) -> list[float]:
    """How long good requests take, every one on a connection of its own."""
    durations = []
    for _ in range(SERVED):
        start_s = time.monotonic()
        assert ask(url, request(api_key, b"Connection: close", body=chat_body())).status == 200
        durations.append(time.monotonic() - start_s)
    return sorted(durations)


@pytest.mark.usefixtures("descriptors")
def test_thousands_of_idle_and_slow_clients_slow_nobody_down(gateway, api_key, worker, record_property):
    """A1.10: every good request is served at once, and of the others nothing is left when their time is over."""
    calm_s = durations_s(gateway.url, api_key)
    before = worker.num_fds()
    memory_bytes = worker.memory_info().rss
    with Wire(gateway.url) as kept, contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connection) for connection in attack(gateway.url, api_key)]
        start_s = time.monotonic()
        held = worker.num_fds() - before
        busy_s = durations_s(gateway.url, api_key)
        assert kept.send(request(api_key, b"Connection: close", body=chat_body())).answer() is not None
        left = set(connections)

        def all_ended() -> bool:
            left.difference_update([connection for connection in left if has_ended(connection)])
            return not left

        eventually(all_ended, timeout_s=ALL_ENDED_WITHIN_S, what="the end of all connections")
    record_property("held", held)
    record_property("calm", {"median_s": calm_s[SERVED // 2], "slowest_s": calm_s[-1]})
    record_property("busy", {"median_s": busy_s[SERVED // 2], "slowest_s": busy_s[-1]})
    record_property("ended_after_s", time.monotonic() - start_s)
    assert held > IDLE, "the attack was over before it had begun"
    assert busy_s[-1] <= SLOWEST_S
    eventually(lambda: worker.num_fds() <= before + DESCRIPTOR_SLACK, what="the descriptors")
    assert worker.memory_info().rss - memory_bytes < CONNECTIONS * 40_000
