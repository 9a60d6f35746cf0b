"""Where every change passes on its way to the workers that watch this control plane.

A change that Redis has is told in the order of the stream that all control planes share, so that a worker that has
acknowledged a revision has seen every one before it. While Redis is away a change is told here alone, at once, with a
revision of its own; it goes through the stream later like any other. Telling something twice is harmless.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Awaitable, Sequence
from typing import Protocol

import msgspec

from controlplane.core.changes import Change, ChangeKind
from controlplane.errors import InterruptedStreamError, RedisUnavailableError, StoreUnavailableError
from controlplane.metrics import Metrics
from controlplane.publish.change_stream import ChangeEntry
from controlplane.watch.history import History
from controlplane.watch.snapshots import Snapshots
from controlplane.watch.watcher import CAPACITY, Watcher
from shared import logs
from shared.backoff import Backoff

# How many changes from before its start a control plane can tell.
REMEMBERED = 1000
BLOCK_S = 2.0
# Two control planes that announce at once draw revisions in one order and append in another, rarely twice in a row.
ATTEMPTS = 40
# After a refused attempt: somebody else is faster, and must not be so for ever. At most so long.
ATTEMPT_PAUSE_S = 0.01
_RANDOM = random.SystemRandom()
# So long an announcement waits for its turn in this process.
TURN_S = 2.0
MAX_KNOWN_VERSIONS = 10_000

_log = logs.get("controlplane.watch")


class Stream(Protocol):
    """The changes that all control planes share. Every method raises ``RedisUnavailableError``."""

    async def append(self, change: Change) -> int | None:
        """Appends a change; None when done, else the revision that the next must be above."""
        ...

    async def newest(self, count: int) -> Sequence[ChangeEntry]:
        """The last entries, oldest first."""
        ...

    async def read(self, after: int, *, block_s: float) -> Sequence[ChangeEntry]:
        """Entries above a revision; waits up to ``block_s`` for the first."""
        ...


class Revisions(Protocol):
    """The one sequence of revisions. Both raise ``StoreUnavailableError``."""

    def next(self, *, above: int = 0) -> Awaitable[int]:
        """The next one, at any rate more than ``above``."""
        ...

    def last(self) -> Awaitable[int]:
        """The last one that was given."""
        ...


class Hub:
    """One per process. ``run`` follows the stream; everything else may be called at any time."""

    def __init__(
        self,
        *,
        stream: Stream,
        revisions: Revisions,
        snapshots: Snapshots,
        metrics: Metrics,
        queue_capacity: int = CAPACITY,
        block_s: float = BLOCK_S,
    ) -> None:
        self._stream = stream
        self._revisions = revisions
        self._metrics = metrics
        self._queue_capacity = queue_capacity
        self._block_s = block_s
        self._history = History()
        self._watchers: set[Watcher] = set()
        self._position = 0
        # What was told last of each key and tenant: version and revision.
        self._known: OrderedDict[str, tuple[int, int]] = OrderedDict()
        # One at a time: those of one process would only refuse each other, and take every connection meanwhile.
        self._turn = asyncio.Lock()
        self._ending = asyncio.Event()
        self.snapshots = snapshots
        self.revision = 0
        self.is_ready = False
        metrics.watch_watchers(lambda: len(self._watchers), lambda: self.revision)

    async def run(self) -> None:
        """Follows the stream until cancelled."""
        backoff = Backoff(first_s=0.05, last_s=1.0)
        while True:
            try:
                if not self.is_ready:
                    await self._begin()
                    backoff.reset()
                await self._follow()
                backoff.reset()
            except (RedisUnavailableError, StoreUnavailableError) as fault:
                _log.debug("changes_delayed", fault=str(fault))
                await asyncio.sleep(backoff.next_s())

    async def announce(self, change: Change) -> int:
        """Tells every control plane; gives the change's revision. The watchers here hear of it with all others.

        Raises ``RedisUnavailableError``, ``StoreUnavailableError``.
        """
        try:
            async with asyncio.timeout(TURN_S):
                await self._turn.acquire()
        except TimeoutError:
            raise RedisUnavailableError("Redis: too many changes wait to be announced") from None
        try:
            last = 0
            for _ in range(ATTEMPTS):
                revision = await self._revisions.next(above=last)
                refused = await self._stream.append(msgspec.structs.replace(change, revision=revision))
                if refused is None:
                    return revision
                last = refused
                await asyncio.sleep(_RANDOM.uniform(0, ATTEMPT_PAUSE_S))
        finally:
            self._turn.release()
        raise RedisUnavailableError("Redis: the stream of changes is too busy")

    async def tell(self, change: Change, *, config: bytes = b"") -> int:
        """Tells the watchers here, and only these, what Redis does not have yet; gives the change's revision.

        ``config`` is what a change of that has led to. Raises ``StoreUnavailableError``.
        """
        version, told = self._known.get(change.id, (0, 0))
        if change.is_version and abs(change.version) <= version:
            return told
        revision = await self._revisions.next()
        if change.kind is ChangeKind.CONFIG:
            self.snapshots.replace_config(config)
        self._push(msgspec.structs.replace(change, revision=revision))
        return revision

    def subscribe(self, revision: int) -> tuple[Watcher, Sequence[Change] | None]:
        """A new watcher with what it has missed since a revision, None when it needs a snapshot.

        Raises ``InterruptedStreamError`` while nothing is known yet, and when the process is ending.
        """
        if self._ending.is_set() or not self.is_ready:
            raise InterruptedStreamError("this control plane cannot be watched now")
        watcher = Watcher(capacity=self._queue_capacity)
        self._watchers.add(watcher)
        # One that has nothing yet, or knows more than we do, has no place in our history.
        return watcher, self._history.since(revision) if 0 < revision <= self.revision else None

    def unsubscribe(self, watcher: Watcher) -> None:
        """The stream has ended."""
        self._watchers.discard(watcher)

    def end(self) -> None:
        """Ends every stream: their workers go on with another control plane."""
        self._ending.set()

    async def ended(self) -> None:
        """Returns when the streams are to end."""
        await self._ending.wait()

    async def _begin(self) -> None:
        """Learns where the stream is."""
        await self.snapshots.read()
        entries = await self._stream.newest(REMEMBERED)
        # An empty stream says nothing; what was told before, and was lost with it, must not be told again.
        self._position = entries[-1].revision if entries else 0
        self.revision = max(self._position, 0 if entries else await self._revisions.last())
        self._history.begin(entries[0].revision if entries else self.revision)
        for entry in entries[1:]:
            if entry.change is not None:
                self._history.add(entry.change)
        self.is_ready = True
        _log.info("watch_ready", revision=self.revision, remembered=len(entries))

    async def _follow(self) -> None:
        entries = await self._stream.read(self._position, block_s=self._block_s)
        if any(entry.change is None or not entry.change.is_version for entry in entries):
            await self.snapshots.read()
        for entry in entries:
            self._take(entry)

    def _take(self, entry: ChangeEntry) -> None:
        if entry.previous != self._position:
            # Redis has lost the stream, or we were away for longer than it goes back.
            _log.warning("changes_missed", after=self._position, revision=entry.revision)
            self._history.begin(entry.revision)
            for watcher in self._watchers:
                watcher.resync("changes were missed")
        self._position = entry.revision
        if entry.change is None:
            self.revision = max(self.revision, entry.revision)
        else:
            self._push(entry.change)

    def _push(self, change: Change) -> None:
        self.revision = max(self.revision, change.revision)
        self._history.add(change)
        if change.is_version:
            self._known.pop(change.id, None)
            self._known[change.id] = (abs(change.version), change.revision)
            if len(self._known) > MAX_KNOWN_VERSIONS:
                self._known.popitem(last=False)
        for watcher in self._watchers:
            watcher.offer(change)
        self._metrics.change_told(change.kind.value)

    def __repr__(self) -> str:
        return f"Hub(watchers={len(self._watchers)}, revision={self.revision})"
