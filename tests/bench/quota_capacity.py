"""What one core of Redis carries: ``python -m tests.bench.quota --capacity``.

Redis as deployed (users, append-only file, ``noeviction``) on a core of its own; on the others, processes with the data
plane's own link, leases and settlements, as the data plane's user: keys of several tenants, every limit set for both.
What is counted is Redis' own: its CPU time, the calls of its scripts, the microseconds that it counts for them.

Each round has both loads. *One worker*: 32 requests at a time that last a while, so that Redis mostly wakes up for one
command. *Full*: as many as Redis answers, hundreds in flight as many workers have them. What a core carries is the
inverse of the CPU that a request takes; under the full load it is what was carried, if Redis' core was full, which the
rows say. Then the events that the round has left are read and acknowledged as the control plane does it.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import statistics
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvloop
from redis.asyncio import Redis as AsyncRedis

from controlplane.publish.usage_stream import UsageStreams
from dataplane.quota.calls import Calls
from dataplane.quota.leases import RedisLeases
from dataplane.quota.refused import RefusedVersions
from dataplane.quota.settlements import Settlements
from dataplane.values import Principal, RequestId
from deploy.local.redis import CONTROLPLANE, DATAPLANE, Redis
from shared import keyspace, records
from shared.clock import SystemClock
from shared.keyspace import TenantId
from tests.bench import processes
from tests.bench.quota_scripts import DEMAND, FULL
from tests.bench.targets import Cores
from tests.fakes.published_state import PublishedState
from tests.fakes.redis_link import running_link
from tests.integration.quota.caller import event

TENANTS, KEYS_OF_EACH = 10, 10
WARM_UP_S = 0.5
_DRAIN_BATCH = 500


@dataclass(frozen=True, slots=True)
class Load:
    """So many requests at a time in all, each of which lasts ``lasts_s``."""

    name: str
    in_flight: int
    lasts_s: float


ONE_WORKER = Load("one worker, 32 at a time", 32, 0.015)
FULL_CORE = Load("full", 512, 0.0)


@dataclass(frozen=True, slots=True)
class Carried:
    """One load for one round. Times of Redis in µs per request."""

    requests_per_s: float
    cpu_us: float
    scripts_us: float
    # Of the wall clock, how long Redis was on its core.
    busy: float
    # To the append-only file; None where it was rewritten meanwhile.
    written_bytes: float | None


def run(server: Redis, *, rounds: int, seconds: float, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """One row for each load, and one for draining."""
    carried, drained_us = measured(server, loads=(ONE_WORKER, FULL_CORE), rounds=rounds, seconds=seconds, say=say)
    rows = [{"case": name, **_median(found)} for name, found in carried.items()]
    return [*rows, {"case": "draining, for each event", "cpu_us": round(statistics.median(drained_us), 2)}]


def measured(
    server: Redis, *, loads: Sequence[Load], rounds: int, seconds: float, say: Callable[[str], None]
) -> tuple[dict[str, list[Carried]], list[float]]:
    """What each round has found by the name of the load, and µs of draining an event."""
    cores = Cores.of_this_machine()
    processes.pin([server.pid], cores.servers)
    processes.pin([os.getpid()], cores.others)
    state = PublishedState(server.url)
    state.stamp()
    tenants = [TenantId(str(uuid.uuid4())) for _ in range(TENANTS)]
    principals = [
        state.principal(key_limits=FULL, tenant_limits=FULL, tenant_id=tenant)
        for tenant in tenants
        for _ in range(KEYS_OF_EACH)
    ]
    carried: dict[str, list[Carried]] = {load.name: [] for load in loads}
    drained_us = []
    for number in range(rounds):
        for load in loads:
            say(f"round {number + 1} of {rounds}: {load.name}")
            with _driven(server.url_of(DATAPLANE), principals, load, drivers=len(cores.others)):
                time.sleep(WARM_UP_S)
                carried[load.name].append(_carried(server, state, seconds))
            drained_us.append(asyncio.run(_drained(server)))
    state.close()
    return carried, drained_us


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows for people."""
    *loads, draining = rows
    names = ("requests/s", "core busy", "µs of CPU", "in scripts", "a core carries", "AOF bytes")
    lines = [f"{'':28}" + "".join(f"{name:>16}" for name in names)]
    for row in loads:
        figures = (
            f"{row['requests_per_s']:.0f}", f"{row['busy']:.0%}", f"{row['cpu_us']:.1f}", f"{row['scripts_us']:.1f}",
            f"{row['carries_per_s']:.0f}/s", f"{row['written_bytes'] or 0:.0f}",
        )  # fmt: skip
        lines.append(f"{row['case']:28}" + "".join(f"{figure:>16}" for figure in figures))
    return "\n".join([*lines, f"{draining['case']}: {draining['cpu_us']} µs of CPU"])


def _median(found: Sequence[Carried]) -> dict[str, Any]:
    def of(name: str) -> float:
        values = [value for one in found if (value := getattr(one, name)) is not None]
        return round(statistics.median(values), 3) if values else 0

    row = {name: of(name) for name in ("requests_per_s", "cpu_us", "scripts_us", "busy", "written_bytes")}
    return row | {"carries_per_s": round(1e6 / row["cpu_us"])}


def _carried(server: Redis, state: PublishedState, seconds: float) -> Carried:
    base, written = _file(state)
    state.client.config_resetstat()
    cpu_us, began_s = processes.cpu_us([server.pid]), time.perf_counter()
    time.sleep(seconds)
    cpu_us, lasted_s = processes.cpu_us([server.pid]) - cpu_us, time.perf_counter() - began_s
    scripts = state.client.info("commandstats")["cmdstat_fcall"]
    # An admission and a settlement each.
    requests = scripts["calls"] / 2
    base_then, written_then = _file(state)
    return Carried(
        requests_per_s=requests / lasted_s,
        cpu_us=cpu_us / requests,
        scripts_us=scripts["usec"] / requests,
        busy=cpu_us / lasted_s / 1e6,
        written_bytes=(written_then - written) / requests if base_then == base else None,
    )


def _file(state: PublishedState) -> tuple[int, int]:
    """Of the append-only file, what it had after it was rewritten last, and what it has now."""
    found = state.client.info("persistence")
    return found["aof_base_size"], found["aof_current_size"]


async def _drained(server: Redis) -> float:
    """Takes what waits out of the streams; µs of Redis' CPU for each event."""
    client = AsyncRedis.from_url(server.url_of(CONTROLPLANE))
    streams = UsageStreams(client, consumer="bench", timeout_s=10)
    cpu_us, events = processes.cpu_us([server.pid]), 0
    while found := await streams.read(keyspace.SHARDS, count=_DRAIN_BATCH, block_s=0.01):
        for shard in keyspace.SHARDS:
            ids = [entry.entry_id for entry in found if entry.shard == shard]
            events += len(ids)
            if ids:
                await streams.acknowledge(shard, ids)
    await client.aclose()
    return (processes.cpu_us([server.pid]) - cpu_us) / max(1, events)


@contextmanager
def _driven(url: str, principals: Sequence[Principal], load: Load, *, drivers: int) -> Iterator[None]:
    """The load, for as long as the block lasts. Raises RuntimeError when a driver has ended early or badly."""
    context = multiprocessing.get_context("spawn")
    ready, over = context.Barrier(drivers + 1), context.Event()
    children = [
        context.Process(target=_drive, args=(url, principals, load, load.in_flight // drivers, ready, over))
        for _ in range(drivers)
    ]
    for child in children:
        child.start()
    try:
        ready.wait(timeout=30)
        yield
        if not all(child.is_alive() for child in children):
            raise RuntimeError("a driver has ended before its load was over")
    finally:
        over.set()
        for child in children:
            child.join(timeout=30)
    if any(child.exitcode for child in children):
        raise RuntimeError("a driver has failed")


def _drive(url: str, principals: Sequence[Principal], load: Load, in_flight: int, ready: Any, over: Any) -> None:
    """One driver process."""
    uvloop.run(_requests(url, principals, load, in_flight, ready, over))


async def _requests(
    url: str, principals: Sequence[Principal], load: Load, in_flight: int, ready: Any, over: Any
) -> None:
    calls = Calls(backlog_max_events=10**9)
    # As long as those of real requests.
    used = event(uuid.uuid4().hex, model="llama3.2:3b", client_ip="192.0.2.7")
    crashed = records.encode(used)
    async with running_link(url, timeout_s=5.0) as link:
        settlements = Settlements(link=link, calls=calls, capacity=100_000)
        leases = RedisLeases(link=link, calls=calls, buffer=settlements, refused=RefusedVersions(), clock=SystemClock())
        is_over = False

        async def requests(number: int) -> None:
            while not is_over:
                number += 1
                principal = principals[number % len(principals)]
                request_id = RequestId(uuid.uuid4().hex)
                lease = await leases.acquire(principal, request_id, DEMAND, crashed)
                if load.lasts_s:
                    await asyncio.sleep(load.lasts_s)
                settlements.settle(lease, principal, used)

        ready.wait(timeout=30)
        async with asyncio.TaskGroup() as group:
            for number in range(in_flight):
                group.create_task(requests(number * len(principals) // in_flight))
            while not over.is_set():
                await asyncio.sleep(0.05)
            is_over = True
        await settlements.drained(10)
