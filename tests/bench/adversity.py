"""What goes wrong while changes are made, for the benchmark of changes."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import asyncpg

from tests.e2e.harness import Gateway
from tests.fakes.tcp_proxy import TCPProxy

_LISTENERS = "FROM pg_stat_activity WHERE application_name LIKE '% listen'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What can go wrong: the gateway, its Postgres as the superuser sees it, and proxies between the planes."""

    gateway: Gateway
    postgres: asyncpg.Connection[Any]
    proxies: Sequence[TCPProxy]


@dataclass(frozen=True, slots=True, kw_only=True)
class Adversity:
    """Something that goes wrong while these operations are done, so many of them at once, and what is promised.

    ``strikes`` gives the block in which it holds. ``cut_goal_ms`` is for the 99th percentile. Traffic goes on for
    ``before_s`` beforehand, for ``after_s`` when the streams have been cut and for ``aftermath_s`` when all is well.
    """

    operations: tuple[str, ...]
    strikes: Callable[[Place], AbstractAsyncContextManager[None]]
    at_once: int = 1
    cut_goal_ms: float = 500.0
    is_pending: bool = False
    is_proxied: bool = False
    before_s: float = 0.0
    after_s: float = 0.3
    aftermath_s: float = 0.0


@contextlib.asynccontextmanager
async def _nothing(_place: Place) -> AsyncIterator[None]:
    yield


@contextlib.asynccontextmanager
async def _stopped_redis(place: Place) -> AsyncIterator[None]:
    place.gateway.signal_server("redis", signal.SIGSTOP)
    try:
        yield
    finally:
        place.gateway.signal_server("redis", signal.SIGCONT)


@contextlib.asynccontextmanager
async def _black_hole(place: Place) -> AsyncIterator[None]:
    for proxy in place.proxies:
        proxy.swallow_requests = proxy.swallow_replies = True
    try:
        yield
    finally:
        for proxy in place.proxies:
            proxy.swallow_requests = proxy.swallow_replies = False


@contextlib.asynccontextmanager
async def _killed_listeners(place: Place) -> AsyncIterator[None]:
    replicas = len(place.gateway.description["admin_addresses"])
    async with asyncio.timeout(10):
        while await place.postgres.fetchval(f"SELECT count(*) {_LISTENERS}") < replicas:
            await asyncio.sleep(0.05)
    await place.postgres.execute(f"SELECT pg_terminate_backend(pid) {_LISTENERS}")
    yield


ADVERSITIES = {
    "nothing": Adversity(operations=("revoke", "suspend", "rotate", "change_limit", "outbox"), strikes=_nothing),
    "black-hole": Adversity(
        operations=("revoke", "suspend", "rotate"),
        strikes=_black_hole,
        at_once=10,
        cut_goal_ms=12_000.0,
        is_proxied=True,
        # A worker that has just got a snapshot asks about its leases at once; that must be over.
        before_s=2.5,
    ),
    "redis": Adversity(
        operations=("revoke", "suspend", "rotate"),
        strikes=_stopped_redis,
        at_once=10,
        is_pending=True,
        before_s=1.0,
        after_s=1.5,
        aftermath_s=2.0,
    ),
    # Without a notification, rows are found by looking for them once a second.
    "listeners": Adversity(operations=("outbox",), strikes=_killed_listeners, cut_goal_ms=1500.0),
}
