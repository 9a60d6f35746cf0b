"""State comes from the stream, or from Redis alone, and never turns back."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Self

import pytest

from dataplane.quota.link import Link
from dataplane.state import watcher
from shared import keyspace
from tests.fakes.published_state import PublishedState
from tests.fakes.state_server import StateServer, serving, snapshot
from tests.fakes.waiting import until
from tests.integration.watch_client.conftest import Worker, config, discovered

pytestmark = pytest.mark.redis


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "INTERVAL_S", 0.05)
    monkeypatch.setattr(watcher, "EAGER_INTERVAL_S", 0.01)


class Reading:
    """The worker reads Redis until the end of the block; ``looks`` says how often it did."""

    def __init__(self, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
        self.worker = worker
        self.looks: list[float] = []
        look = worker.watcher.look

        async def counted() -> None:
            self.looks.append(time.monotonic())
            await look()

        monkeypatch.setattr(worker.watcher, "look", counted)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self.worker.watcher.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def test_worker_starts_from_redis_alone(link: Link, state: PublishedState, fast, monkeypatch):
    state.models(config(3), discovered(3, "llama3"))
    worker = Worker(link, ["127.0.0.1:1"])
    async with worker.watching(), Reading(worker, monkeypatch):
        await until(lambda: worker.readiness.ready)
        assert worker.names == ["llama3"]
        state.models(config(3), discovered(4, "qwen3:4b"))
        await until(lambda: worker.names == ["qwen3:4b"])


async def test_worker_starts_from_the_stream_alone(unconnected: Link, server: StateServer, fast, monkeypatch):
    worker = Worker(unconnected, [server.address])
    async with worker.watching(), Reading(worker, monkeypatch):
        await until(lambda: worker.readiness.ready)
        assert worker.names == ["llama3"]


async def test_older_state_in_redis_does_not_turn_the_worker_back(
    link: Link, state: PublishedState, server: StateServer, fast, monkeypatch
):
    state.models(config(3), discovered(3, "qwen3:4b"))
    worker = Worker(link, [server.address])
    async with worker.watching(), Reading(worker, monkeypatch) as reading:
        await (await server.stream()).acknowledgement(7)
        before = len(reading.looks)
        await until(lambda: len(reading.looks) > before + 2)
        assert worker.names == ["llama3"]


async def test_redis_is_asked_less_often_while_the_stream_brings_everything(
    link: Link, state: PublishedState, server: StateServer, fast, monkeypatch
):
    state.models(config(3), discovered(3, "qwen3:4b"))
    worker = Worker(link, [server.address])
    async with worker.watching(), Reading(worker, monkeypatch) as reading:
        await (await server.stream()).acknowledgement(7)
        reading.looks.clear()
        await until(lambda: len(reading.looks) >= 3)
        assert reading.looks[2] - reading.looks[1] > 0.2
        # What the stream has missed is found all the same.
        state.models(config(8), discovered(8, "gemma3:4b"))
        await until(lambda: worker.names == ["gemma3:4b"])
        await server.stop()
        await until(lambda: not worker.watch.is_current)
        reading.looks.clear()
        await until(lambda: len(reading.looks) >= 10)
        # Of some rests one is the short one: a busy machine lengthens them, and shortens none of the long ones.
        assert min(after - before for before, after in itertools.pairwise(reading.looks)) < 0.2
        await server.start()


async def test_models_expire_while_the_stream_only_beats(unconnected: Link, fast, monkeypatch):
    async with serving(StateServer(snapshot(7, config(7), discovered(7, "llama3"), valid_ms=1000))) as server:
        worker = Worker(unconnected, [server.address])
        async with worker.watching(), Reading(worker, monkeypatch):
            await until(lambda: worker.readiness.ready)
            await until(lambda: not worker.readiness.ready)
            assert worker.watch.is_current


async def test_snapshot_without_models_leaves_those_of_redis(
    link: Link, state: PublishedState, server: StateServer, fast, monkeypatch
):
    server.opening = (snapshot(9, config(9)),)
    state.models(config(3), discovered(3, "llama3"))
    worker = Worker(link, [server.address])
    async with worker.watching(), Reading(worker, monkeypatch):
        await (await server.stream()).acknowledgement(9)
        await until(lambda: worker.readiness.ready)
        assert worker.names == ["llama3"]
        state.client.delete(keyspace.MODELS_DISCOVERED)
        assert worker.readiness.ready
