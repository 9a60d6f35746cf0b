"""Polls every backend for its models and publishes what they offer, with a time to live.

One replica polls per interval: whoever takes a short lock. While it works the lock lasts a few seconds, so that its
death is made good soon; afterwards it lasts the rest of the interval. A failure never extends what is known: without a
good answer the record in Redis ends by itself, and then nothing resolves.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

from controlplane.core import discovery
from controlplane.core.changes import Change, ChangeKind
from controlplane.core.discovery import Poll
from controlplane.core.ports import BackendSource
from controlplane.errors import RedisUnavailableError, StoreUnavailableError
from controlplane.ollama.client import Target
from controlplane.ollama.poller import Poller
from controlplane.publish.discovered import DiscoveredState, JobLock
from shared import logs
from shared.backoff import Backoff
from shared.records import BackendModelsRecord, BackendRecord, DiscoveredRecord
from shared.sealing import Sealer, SealError

JOB = "discover"
# Longer than a poll can take: the lists, what is asked about models, and Redis.
WORKING_S = 15.0
# When models are left to be asked about.
SOON_S = 1.0
# How often a replica looks whether it is its turn; also how soon a Redis that lost its data is filled again.
TICK_S = 1.0
UNOPENED = "credential sealed with another key"

_log = logs.get("controlplane.tasks.discover")


class Watchers(Protocol):
    """Those who are told of changes."""

    async def announce(self, change: Change) -> int:
        """Tells them. Raises ``RedisUnavailableError``, ``StoreUnavailableError``."""
        ...


class Discovery:
    """The polls of this replica; ``wake`` makes it poll at once, whoever's turn it is."""

    def __init__(
        self,
        *,
        source: BackendSource,
        sealer: Sealer,
        poller: Poller,
        state: DiscoveredState,
        watchers: Watchers,
        lock: JobLock,
        refresh_s: float,
        ttl_s: float,
    ) -> None:
        self._source = source
        self._sealer = sealer
        self._poller = poller
        self._state = state
        self._watchers = watchers
        self._lock = lock
        self._refresh_s = refresh_s
        self._ttl_ms = round(ttl_s * 1000)
        self._tick_s = min(TICK_S, refresh_s / 4)
        self._woken = asyncio.Event()
        self._backends: Sequence[BackendRecord] = ()
        self._last: dict[str, Poll] = {}
        self._failures: Counter[str] = Counter()

    async def run(self) -> None:
        """Polls until cancelled."""
        backoff = Backoff()
        # The first poll is due at once: the backends may be others than those that the last process knew.
        force = True
        while True:
            try:
                if await self._lock.acquire(ttl_s=WORKING_S, force=force):
                    await self.poll()
                force, pause_s = False, self._tick_s
                backoff.reset()
            except (RedisUnavailableError, StoreUnavailableError) as fault:
                _log.warning("discovery_delayed", fault=str(fault))
                pause_s = backoff.next_s()
            force = await self._woken_within(pause_s) or force

    def wake(self) -> None:
        """The backends have changed: polls at once."""
        self._woken.set()

    async def poll(self) -> None:
        """One round, by whoever holds the lock. Raises ``RedisUnavailableError``, ``StoreUnavailableError``."""
        previous = await self._state.read()
        backends = await self._known_backends()
        polls, complete = await self._poll_all(backends, previous)
        self._remember(polls)
        # Whoever was woken meanwhile has taken the lock, and knows backends that this poll may not.
        if await self._lock.extend(ttl_s=WORKING_S):
            now_ms = await self._state.now_ms()
            record = discovery.merged(previous, polls, now_ms=now_ms, ttl_ms=self._ttl_ms)
            if record is not None and await self._state.write(record, now_ms=now_ms):
                await self._announce()
            await self._lock.extend(ttl_s=self._refresh_s if complete else min(SOON_S, self._refresh_s))

    async def read(self) -> DiscoveredRecord | None:
        """What is published. Raises ``RedisUnavailableError``."""
        return await self._state.read()

    @property
    def last_polls(self) -> Mapping[str, Poll]:
        """How each backend answered this replica last."""
        return self._last

    def failures(self, backend: str) -> int:
        """How often the backend did not answer this replica."""
        return self._failures[backend]

    async def _announce(self) -> None:
        try:
            await self._watchers.announce(Change(kind=ChangeKind.DISCOVERED))
        except (RedisUnavailableError, StoreUnavailableError) as fault:
            # Workers look into Redis now and then anyway; models go on being discovered without Postgres.
            _log.debug("discovery_not_announced", fault=str(fault))

    async def _woken_within(self, pause_s: float) -> bool:
        try:
            async with asyncio.timeout(pause_s):
                await self._woken.wait()
        except TimeoutError:
            return False
        self._woken.clear()
        return True

    async def _known_backends(self) -> Sequence[BackendRecord]:
        try:
            self._backends = await self._source.backends()
        except StoreUnavailableError:
            # Postgres may be away for long; the backends that were known go on being polled.
            if not self._backends:
                raise
        return self._backends

    async def _poll_all(
        self, backends: Sequence[BackendRecord], previous: DiscoveredRecord | None
    ) -> tuple[list[Poll], bool]:
        before = {entry.backend: entry for entry in previous.backends} if previous else {}
        self._poller.forget(frozenset(backend.name for backend in backends))
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(self._poll_one(backend, before.get(backend.name))) for backend in backends]
        outcomes = [task.result() for task in running]
        return [poll for poll, _ in outcomes], all(complete for _, complete in outcomes)

    async def _poll_one(self, backend: BackendRecord, before: BackendModelsRecord | None) -> tuple[Poll, bool]:
        try:
            target = Target.of(backend, self._sealer)
        except SealError:
            return Poll(backend=backend.name, problem=UNOPENED), True
        return await self._poller.poll(target, before)

    def _remember(self, polls: Sequence[Poll]) -> None:
        for poll in polls:
            known = self._last.get(poll.backend)
            self._failures[poll.backend] += bool(poll.problem)
            if poll.problem and (known is None or known.problem != poll.problem):
                _log.warning("backend_poll_failed", backend=poll.backend, problem=poll.problem)
            elif not poll.problem and (known is None or known.problem):
                _log.info("backend_polled", backend=poll.backend, models=len(poll.models or ()))
        self._last = {poll.backend: poll for poll in polls}
        self._failures = Counter({name: self._failures[name] for name in self._last})

    def __repr__(self) -> str:
        return f"Discovery(backends={len(self._backends)})"
