"""A client that goes away: the upstream is cancelled, the request charged and audited, and no lease stays behind."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from urllib.parse import urlsplit

import pytest

from tests.e2e.harness import eventually

CYCLES = 500  # of each kind
AT_ONCE = 25
UPSTREAM_CLOSED_WITHIN_S = 0.3
# Far from the forty seconds that a generation takes here.
WITHOUT_A_CORE_S = 5.0


def request_bytes(url: str, key: str, number: int, *, stream: bool) -> bytes:
    body = json.dumps(
        {"model": "llama3.2", "stream": stream, "messages": [{"role": "user", "content": f"number-{number}"}]}
    ).encode()
    head = (
        f"POST /api/chat HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def leave(url: str, key: str, number: int, *, stream: bool, reset: bool, seen: asyncio.Event | None) -> float:
    """Asks, waits until the upstream is at work, and leaves; returns the moment of leaving."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(request_bytes(url, key, number, stream=stream))
    if stream:
        await reader.readuntil(b'"done":false')
    elif seen is not None:
        await seen.wait()
    if reset:
        connection: socket.socket = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    left_at_s = time.monotonic()
    writer.close()
    return left_at_s


async def leave_often(gateway, mock, key: str, *, stream: bool) -> dict[int, float]:
    left: dict[int, float] = {}
    for start in range(0, CYCLES, AT_ONCE):
        seen = asyncio.Event()
        numbers = range(start, start + AT_ONCE)
        async with asyncio.TaskGroup() as group:
            tasks = {
                number: group.create_task(
                    leave(gateway.url, key, number, stream=stream, reset=number % 2 == 0, seen=seen)
                )
                for number in numbers
            }
            if not stream:
                deadline_s = time.monotonic() + 10
                while (await asyncio.to_thread(mock.stats))["in_flight"] < AT_ONCE and time.monotonic() < deadline_s:
                    await asyncio.sleep(0.01)
                seen.set()
        left.update({number: task.result() for number, task in tasks.items()})
        while (await asyncio.to_thread(mock.stats))["in_flight"]:
            await asyncio.sleep(0.01)
    return left


@pytest.mark.timeout(300)
@pytest.mark.parametrize("stream", [True, False], ids=["streaming", "whole"])
def test_a_client_that_leaves_cancels_is_charged_and_leaves_no_lease(gateway, mock, tenant, key, shared_key, stream):
    mock.settings(tokens=2000, record_delay_ms=20)
    left = asyncio.run(leave_often(gateway, mock, key, stream=stream))
    requests = mock.requests("/api/chat")
    assert len(requests) == CYCLES
    delays_s = []
    for request in requests:
        number = int(request["json"]["messages"][-1]["content"].removeprefix("number-"))
        closed_at_s = request["closed_by_peer_at_s"]
        assert closed_at_s is not None, f"number {number} was generated to its end"
        delays_s.append(closed_at_s - left[number])
    delays_s.sort()
    # Two cores carry client, gateway and upstream: one in ten may wait for a core, none for the end of a generation.
    assert delays_s[CYCLES * 9 // 10] <= UPSTREAM_CLOSED_WITHIN_S, delays_s
    assert delays_s[-1] <= WITHOUT_A_CORE_S, delays_s

    eventually(lambda: gateway.open_leases() == 0, timeout_s=15, what="that no lease is left")
    query = (
        "SELECT a.outcome, a.provenance, a.total_tokens, a.completion_tokens FROM gateway.audit_log a "
        "JOIN gateway.tenants t ON t.id = a.tenant_id WHERE t.name = $1"
    )

    def all_rows():
        rows = gateway.rows(query, tenant)
        return rows if len(rows) >= CYCLES else []

    rows = eventually(all_rows, timeout_s=20, what="an audit row for each")
    assert len(rows) == CYCLES
    assert {row["outcome"] for row in rows} == {"client_closed"}
    assert all(row["total_tokens"] > 0 for row in rows)
    if stream:
        assert all(row["completion_tokens"] >= 1 for row in rows)
