"""A cancellation that meets an arriving record still stops the task."""

from __future__ import annotations

import asyncio
import random

from dataplane.upstream.transport import Transport
from deploy.mock_ollama import MockOllama
from tests.integration.upstream.exchange import exchange, post

READERS = 20
ROUNDS = 20
CHAT = b'{"model":"llama3.2","messages":[{"role":"user","content":"Hi"}]}'


async def read_for_ever(transport: Transport, url: str, reading: asyncio.Event) -> None:
    with exchange(transport, url) as source:
        status, _ = await source.head(post(f"{url}/api/chat", CHAT), source.after(5))
        assert status == 200
        while await source.chunk(source.after(5)) is not None:
            reading.set()


async def test_a_cancellation_that_meets_a_record_is_not_lost():
    transport = Transport(connect_timeout_s=5, max_idle_per_backend=READERS)
    async with MockOllama() as mock:
        mock.set_settings(tokens=5000, record_delay_ms=1)
        for _ in range(ROUNDS):
            async with asyncio.TaskGroup() as group:
                started = [asyncio.Event() for _ in range(READERS)]
                tasks = [group.create_task(read_for_ever(transport, mock.url, reading)) for reading in started]
                for reading in started:
                    await reading.wait()
                for task in tasks:
                    await asyncio.sleep(random.random() / 1000)
                    task.cancel()
            assert all(task.cancelled() for task in tasks)
    await transport.aclose()
