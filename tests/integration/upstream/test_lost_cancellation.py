"""A cancellation that meets an arriving record still stops the task."""

from __future__ import annotations

import asyncio
import random

import httpx

from dataplane.upstream.transport import Body, BodyStream, Transport
from deploy.mock_ollama import MockOllama

READERS = 20
ROUNDS = 20


async def read_for_ever(transport: Transport, url: str, reading: asyncio.Event) -> None:
    content = b'{"model":"llama3.2","messages":[{"role":"user","content":"Hi"}]}'
    headers = {"content-type": "application/json", "content-length": str(len(content)), "host": "localhost"}
    request = httpx.Request("POST", f"{url}/api/chat", headers=headers, stream=Body(content))
    response = await transport.handle_async_request(request)
    assert response.status_code == 200
    stream = response.stream
    assert isinstance(stream, BodyStream)
    try:
        while await stream.read() is not None:
            reading.set()
    finally:
        await stream.aclose()


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
