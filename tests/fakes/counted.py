"""Counters and leases as tests put them into Redis and find them there."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import msgspec

from shared import keyspace, layout
from shared.keyspace import LeaseId, Period, Scope, Shard
from shared.layout import Counter, OpenLease

# The head of windows that nobody was admitted in.
_NO_HEAD = b"\0" * 56
_COUNTED_SIZE = len(layout.write_counters({}))


def counted(counters: Mapping[Period, Counter]) -> bytes:
    """The string of a scope in whose last minute nothing was admitted."""
    return layout.write_counters(counters) + _NO_HEAD


def changed_counters(raw: bytes | None, period: str, **change: int | None) -> bytes:
    """The string of a scope with another ``used`` or ``reserved`` in a period."""
    counters = layout.read_counters(raw)
    found = counters.get(Period(period), Counter())
    counters[Period(period)] = msgspec.structs.replace(found, **change)
    return layout.write_counters(counters) + (_NO_HEAD if raw is None else raw[_COUNTED_SIZE:])


def without_period(raw: bytes, period: str) -> bytes:
    """The string of a scope that has lost a period."""
    counters = layout.read_counters(raw)
    counters.pop(Period(period), None)
    return layout.write_counters(counters) + raw[_COUNTED_SIZE:]


def counter(client: Any, shard: Shard, scope: Scope, period: str) -> Counter:
    """What a scope has in a period."""
    return layout.read_counters(client.get(keyspace.counters(shard, scope))).get(Period(period), Counter())


def set_counter(client: Any, shard: Shard, scope: Scope, period: str, **change: int) -> None:
    """Sets ``used`` or ``reserved`` of a scope in a period."""
    name = keyspace.counters(shard, scope)
    client.set(name, changed_counters(client.get(name), period, **change))


async def counter_of(client: Any, shard: Shard, scope: Scope, period: str) -> Counter | None:
    """The same with a client that is awaited; None where there is none."""
    raw = client.get(keyspace.counters(shard, scope))
    return layout.read_counters(await raw if inspect.isawaitable(raw) else raw).get(Period(period))


async def put_counter(client: Any, shard: Shard, scope: Scope, period: str, **change: int) -> None:
    """Likewise."""
    name = keyspace.counters(shard, scope)
    await client.set(name, changed_counters(await client.get(name), period, **change))


async def drop_counter(client: Any, shard: Shard, scope: Scope, period: str) -> None:
    """Loses a period of a scope."""
    name = keyspace.counters(shard, scope)
    await client.set(name, without_period(await client.get(name), period))


def lease(client: Any, shard: Shard, lease_id: str) -> OpenLease | None:
    """An open lease; None where there is none or a tombstone."""
    raw = client.get(keyspace.lease(shard, LeaseId(lease_id)))
    return layout.read_lease(raw) if layout.state_of(raw) == "open" else None


def state_of(client: Any, shard: Shard, lease_id: str) -> str:
    """``open``, ``settled``, ``reaped`` or nothing."""
    return layout.state_of(client.get(keyspace.lease(shard, LeaseId(lease_id))))
