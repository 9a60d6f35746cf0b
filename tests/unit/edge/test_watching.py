"""What is noticed of clients by looking at all of them now and then."""

from __future__ import annotations

import asyncio
import math
import weakref
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

import pytest

from dataplane.api.watching import Departures, Patience
from tests.fakes.waiting import until


class Client:
    """A request that counts how often it was told something."""

    def __init__(self, due_s: float = math.inf) -> None:
        self.due_s = due_s
        self.told = 0

    def overdue(self) -> None:
        self.told += 1
        self.due_s = math.inf

    def start_watching(self) -> None:
        self.told += 1


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    for watch in (Departures, Patience):
        monkeypatch.setattr(watch, "PERIOD_S", 0.001)


@asynccontextmanager
async def running(watch: Awaitable[None]) -> AsyncIterator[None]:
    task = asyncio.ensure_future(watch)
    yield
    task.cancel()
    await asyncio.wait((task,))


async def test_who_is_late_is_told_once_and_who_is_not_never():
    now_s = asyncio.get_running_loop().time()
    late, early, idle = Client(now_s - 1), Client(now_s + 60), Client()
    async with running(Patience([late, early, idle]).watch()):
        await until(lambda: late.told)
        await asyncio.sleep(0.01)
    assert (late.told, early.told, idle.told) == (1, 0, 0)


async def test_who_is_not_answered_at_the_next_look_is_watched_once():
    departures, slow, fast = Departures(), Client(), Client()
    departures.expect(slow)
    departures.expect(fast)
    departures.forget(fast)
    departures.forget(fast)
    async with running(departures.watch()):
        await until(lambda: slow.told)
        await asyncio.sleep(0.01)
    assert (slow.told, fast.told) == (1, 0)


async def test_a_request_is_alone_until_another_begins_and_again_when_that_is_over():
    departures, one, other = Departures(), Client(), Client()
    seen = [departures.is_alone]
    for step in (lambda: departures.expect(one), lambda: departures.expect(other), lambda: departures.forget(one)):
        step()
        seen.append(departures.is_alone)
    assert seen == [True, True, False, True]


async def test_who_was_seen_last_is_not_kept():
    departures, late = Departures(), {Client(0.0)}
    departures.expect(Client())
    [unanswered] = [weakref.ref(client) for client in departures._unwatched]
    [overdue] = [weakref.ref(client) for client in late]
    async with running(departures.watch()), running(Patience(late).watch()):
        await until(lambda: unanswered() is None)
        await until(lambda: all(client.told for client in late))
        late.clear()
        await until(lambda: overdue() is None)
