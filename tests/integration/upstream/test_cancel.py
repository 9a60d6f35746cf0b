"""A client that leaves: the backend is cut off at once and nothing is left behind."""

import asyncio
import random
from collections import Counter
from urllib.parse import urlsplit

import psutil
import pytest

from dataplane.errors import ClientClosedError
from dataplane.interrupt import Interrupt
from deploy.mock_ollama import MockOllama, faults
from tests.fakes.waiting import until
from tests.integration.upstream.gateway import gateway, request

CYCLES = 1000
AT_ONCE = 25
# At once: by itself nothing would end for five seconds.
GONE_WITHIN_S = 2.0
ENDLESS = 4000


@pytest.mark.parametrize(
    "fault",
    [faults.Hang(), faults.Hang(where="after_headers"), faults.Hang(where="after_records"), faults.Endless()],
    ids=["before headers", "after headers", "after a record", "in the middle"],
)
async def test_a_client_that_leaves_cuts_the_backend_off(fault):
    async with MockOllama() as mock, gateway(mock) as one:
        mock.script(fault)
        interrupt = Interrupt()

        async def serve() -> None:
            with interrupt:
                await one.text()

        task = asyncio.create_task(serve())
        await until(lambda: mock.stats()["in_flight"] == 1)
        interrupt.fire(ClientClosedError())
        with pytest.raises(ClientClosedError):
            await task
        await until(lambda: mock.stats()["in_flight"] == 0, timeout_s=GONE_WITHIN_S)
        assert mock.requests[0].closed_by_peer_at_s is not None
        assert one.backends.in_flight("a") == 0


def connections_to(mock: MockOllama) -> int:
    """How many sockets of this process belong to connections with the mock, on either side."""
    port = urlsplit(mock.url).port
    return sum(
        port in (one.laddr.port, one.raddr.port if one.raddr else None)
        for one in psutil.Process().net_connections(kind="tcp")
    )


async def test_a_thousand_cancelled_requests_leave_nothing_behind():
    source = random.Random(1)
    async with MockOllama() as mock, gateway(mock, max_connections=AT_ONCE) as one:
        mock.set_settings(tokens=ENDLESS, record_delay_ms=2, load_delay_ms=3)
        endless = request(num_predict=ENDLESS)
        await one.text()
        tasks_before, connections_before = len(asyncio.all_tasks()), connections_to(mock)
        ends = Counter[bool]()
        for _ in range(CYCLES // AT_ONCE):
            tasks = [asyncio.create_task(one.text(endless)) for _ in range(AT_ONCE)]
            for task in tasks:
                await asyncio.sleep(source.random() / 1000)
                task.cancel()
            await asyncio.wait(tasks)
            ends.update(task.cancelled() for task in tasks)
        assert ends == {True: CYCLES}
        await until(lambda: mock.stats()["in_flight"] == 0, timeout_s=GONE_WITHIN_S)
        await until(lambda: connections_to(mock) <= connections_before)
        await until(lambda: len(asyncio.all_tasks()) <= tasks_before)
        assert one.backends.in_flight("a") == 0
        assert await one.text()


async def test_a_cancelled_wait_for_a_slot_takes_none():
    async with MockOllama() as mock, gateway(mock, max_connections=1) as one:
        mock.script(faults.Hang())
        holding = asyncio.create_task(one.text())
        await until(lambda: mock.stats()["in_flight"] == 1)
        waiting = asyncio.create_task(one.text())
        await until(lambda: one.backends.in_flight("a") == 2)
        waiting.cancel()
        holding.cancel()
        await asyncio.wait([waiting, holding])
        assert one.backends.in_flight("a") == 0
        assert await one.text()
