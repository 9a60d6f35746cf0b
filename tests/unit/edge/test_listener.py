"""What the kernel is told about clients' connections."""

import asyncio
import socket
import sys

import pytest
import structlog

from dataplane import __main__ as program
from dataplane.api import listener

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="TCP_USER_TIMEOUT is Linux's")


def user_timeout_ms(connection: socket.socket) -> int:
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
async def test_accepted_connections_inherit_the_bound(family):
    with socket.create_server(("", 0), family=family) as server, socket.create_server(("", 0)) as another:
        address = server.getsockname()
        await listener.bound_unread_replies(address[1], timeout_s=1.5)
        assert user_timeout_ms(server) == 1500
        assert user_timeout_ms(another) == 0
        with socket.socket(family) as client:
            client.connect(("::1" if family == socket.AF_INET6 else "127.0.0.1", address[1]))
            accepted, _ = server.accept()
            with accepted:
                assert user_timeout_ms(accepted) == 1500


async def test_a_socket_that_listens_later_is_found():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        task = asyncio.create_task(listener.bound_unread_replies(server.getsockname()[1], timeout_s=2))
        await asyncio.sleep(0)
        assert not task.done()
        server.listen()
        await asyncio.wait_for(task, timeout=5)
        assert user_timeout_ms(server) == 2000


async def test_a_socket_that_never_listens_is_a_warning():
    with structlog.testing.capture_logs() as logged:
        await listener.bound_unread_replies(1, timeout_s=2, find_timeout_s=0.05)
    assert [line["event"] for line in logged] == ["listening_socket_not_found"]


@pytest.mark.parametrize(
    ("descriptors", "connections"),
    [(256, 128), (1024, 512), (4096, 3584), (20_000, 17_500), (65_536, 20_000), (1_048_576, 20_000)],
)
def test_clients_leave_descriptors_for_everything_else(descriptors, connections):
    assert program.connections_within(descriptors) == connections
