"""The queue of one stream."""

from __future__ import annotations

import asyncio

from controlplane.core.changes import Change, ChangeKind
from controlplane.watch.watcher import Watcher


def change(revision: int) -> Change:
    return Change(kind=ChangeKind.KEY, id="k", version=1, revision=revision)


async def test_what_waits_is_taken_at_once_and_only_once():
    watcher = Watcher()
    watcher.offer(change(1))
    watcher.offer(change(2))
    assert [each.revision for each in await watcher.take(within_s=5)] == [1, 2]
    assert await watcher.take(within_s=0) == ()


async def test_a_change_wakes_whoever_waits():
    watcher = Watcher()
    taking = asyncio.create_task(watcher.take(within_s=5))
    await asyncio.sleep(0)
    watcher.offer(change(1))
    assert [each.revision for each in await taking] == [1]


async def test_a_full_queue_is_emptied_for_good():
    watcher = Watcher(capacity=2)
    for revision in range(4):
        watcher.offer(change(revision))
    assert watcher.resync_reason
    assert await watcher.take(within_s=5) == ()
    watcher.offer(change(9))
    assert watcher.take_waiting() == ()


async def test_the_first_reason_stays():
    watcher = Watcher()
    watcher.resync("one")
    watcher.resync("two")
    assert watcher.resync_reason == "one"
