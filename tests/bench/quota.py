"""What admission and settlement cost: ``python -m tests.bench.quota [--scripts | --capacity] [--json]``.

One Redis, one link as a worker has it. Measured are ``acquire`` and ``settle`` in turn, in operations per second and in
microseconds: on the client (CPU time of this process) and in the server (the time that it counts for the commands).
Every figure stands beside that of ``PING`` through the same link in the same round; cases and ``PING`` alternate, and
the medians of all rounds are shown. What each script costs in the server is measured apart, in batches of one after the
other; ``--scripts`` measures that alone, and more closely (``quota_scripts``), ``--capacity`` how many requests a core
of Redis carries (``quota_capacity``). A case in which other decisions are made than it is about ends the command.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataplane.errors import LimitExceededError
from dataplane.quota.calls import Calls
from dataplane.quota.leases import RedisLeases
from dataplane.quota.link import Link
from dataplane.quota.refused import RefusedVersions
from dataplane.quota.settlements import Settlements
from dataplane.values import Demand, Lease, Limits, Principal, RequestId
from deploy.local.redis import Redis
from shared import keyspace
from shared.clock import SystemClock
from tests.bench import quota_capacity, quota_scripts
from tests.fakes.published_state import PublishedState
from tests.fakes.redis_link import running_link
from tests.integration.quota.caller import CRASHED, event

IN_FLIGHT = (1, 32, 128)
DEMAND = Demand(prompt_bound=400, prompt_estimate=60, num_predict=256)
MANY = 10**9
FULL = Limits(rpm=MANY, tpm=MANY, concurrent=1000, budget_day=10**12, budget_month=10**12, budget_total=10**12)
UNLIMITED = Limits(rpm=None, tpm=None, concurrent=None)
CASES: dict[str, Limits] = {
    "no limits": UNLIMITED,
    "requests/min, exact": Limits(rpm=128, tpm=None, concurrent=None),
    "requests/min, 6000": Limits(rpm=6000, tpm=None, concurrent=None),
    "tokens/min and concurrency": Limits(rpm=None, tpm=MANY, concurrent=1000),
    "budgets": Limits(rpm=None, tpm=None, concurrent=None, budget_day=10**12, budget_month=10**12, budget_total=10**12),
    "all limits": FULL,
    "denied: 60 requests/min": Limits(rpm=60, tpm=None, concurrent=None),
    "denied: concurrency": Limits(rpm=None, tpm=None, concurrent=0),
}
DENIED = "denied"
BATCH = 50


@dataclass(frozen=True, slots=True)
class Cost:
    """One round of one case at one concurrency."""

    operations_per_s: float
    client_us: float
    server_us: float


class Bench:
    """One server, one link, and what runs on them."""

    def __init__(self, state: PublishedState, link: Link) -> None:
        self._state = state
        self._link = link
        calls = Calls(backlog_max_events=10**9)
        self._settlements = Settlements(link=link, calls=calls, capacity=10_000)
        self._leases = RedisLeases(
            link=link, calls=calls, buffer=self._settlements, refused=RefusedVersions(), clock=SystemClock()
        )

    async def ping(self) -> None:
        """The smallest thing that can be asked."""
        await self._link.read(("PING",))

    def pair(self, principal: Principal, *, is_denied: bool = False) -> Callable[[], Awaitable[None]]:
        """An admission and its settlement, or a denial. Raises LimitExceededError for a denial that was not meant."""

        async def run() -> None:
            try:
                lease = await self.acquired(principal)
            except LimitExceededError:
                if not is_denied:
                    raise
            else:
                self.settle(principal, lease)
                if is_denied:
                    raise RuntimeError("admitted where a denial was to be measured")

        return run

    async def acquired(self, principal: Principal) -> Lease:
        """One admission."""
        return await self._leases.acquire(principal, RequestId(uuid.uuid4().hex), DEMAND, CRASHED)

    def settle(self, principal: Principal, lease: Lease) -> None:
        """Its settlement."""
        self._settlements.settle(lease, principal, event(lease.lease_id, prompt_tokens=60, completion_tokens=200))

    async def spent(self, principal: Principal) -> None:
        """Uses up what the requests/min allow."""
        for _ in range(principal.key_limits.rpm or 0):
            self.settle(principal, await self.acquired(principal))
        await self._settlements.drained(10)

    async def apart(self, principals: list[Principal], count: int, *, is_denied: bool) -> tuple[float, float | None]:
        """Microseconds in the server of ``acquire`` and ``settle``, each by itself; without a lease no ``settle``."""
        acquire_us = settle_us = 0.0
        batches = max(1, count // BATCH)
        for number in range(batches):
            principal = principals[number * BATCH // _room(principals[0]) % len(principals)]
            self._state.client.config_resetstat()
            leases = []
            for _ in range(BATCH):
                try:
                    leases.append(await self.acquired(principal))
                except LimitExceededError:
                    if not is_denied:
                        raise
            acquire_us += self._server_us()
            self._state.client.config_resetstat()
            for lease in leases:
                self.settle(principal, lease)
            await self._settlements.drained(10)
            settle_us += self._server_us()
        calls = batches * BATCH
        return acquire_us / calls, None if is_denied else settle_us / calls

    async def measured(self, call: Callable[[], Awaitable[None]], count: int, in_flight: int) -> Cost:
        """Runs so many calls, so many of them at once."""
        self._state.client.config_resetstat()
        left = count

        async def worker() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                await call()

        started_s, cpu_s = time.perf_counter(), time.process_time()
        await asyncio.gather(*(worker() for _ in range(in_flight)))
        await self._settlements.drained(10)
        wall_s, cpu_s = time.perf_counter() - started_s, time.process_time() - cpu_s
        return Cost(count / wall_s, 1e6 * cpu_s / count, self._server_us() / count)

    def _server_us(self) -> float:
        """Microseconds that the server has counted for scripts and pings since the last reset."""
        stats = self._state.client.info("commandstats")
        return float(sum(stats.get(f"cmdstat_{name}", {}).get("usec", 0) for name in ("fcall", "ping")))

    def forget(self) -> None:
        """Empties the streams, so that every round finds the same."""
        for shard in keyspace.SHARDS:
            self._state.client.delete(keyspace.usage(shard))


async def run(state: PublishedState, *, calls: int, repeat: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """All cases; one row for each case and concurrency, and one for each case with its scripts apart."""
    costs: dict[tuple[str, int], list[Cost]] = {}
    apart: dict[str, list[tuple[float, float | None]]] = {}
    async with running_link(state.url, timeout_s=2.0) as link:
        bench = Bench(state, link)
        for number in range(repeat):
            for in_flight in IN_FLIGHT:
                say(f"round {number + 1} of {repeat}, {in_flight} in flight")
                cost = await bench.measured(bench.ping, calls, in_flight)
                costs.setdefault(("PING", in_flight), []).append(cost)
                for name in CASES:
                    principals = await _principals(state, bench, name, calls)
                    turns = _turns(bench, principals, is_denied=name.startswith(DENIED))
                    costs.setdefault((name, in_flight), []).append(await bench.measured(turns, calls, in_flight))
                    bench.forget()
            say(f"round {number + 1} of {repeat}, each script apart")
            for name in CASES:
                principals = await _principals(state, bench, name, calls)
                figures = await bench.apart(principals, calls, is_denied=name.startswith(DENIED))
                apart.setdefault(name, []).append(figures)
                bench.forget()
    rows = [_row(name, in_flight, rounds, costs["PING", in_flight]) for (name, in_flight), rounds in costs.items()]
    return rows + [_row_apart(name, figures) for name, figures in apart.items()]


async def _principals(state: PublishedState, bench: Bench, name: str, calls: int) -> list[Principal]:
    """One, or as many as it takes for none of them to come to its limit; for a denial one that is at its limit."""
    limits, is_denied = CASES[name], name.startswith(DENIED)
    needed = 1 if is_denied or not limits.rpm or limits.rpm >= MANY else calls // _usable(limits.rpm) + 1
    principals = [
        state.principal(key_limits=limits, tenant_limits=UNLIMITED if limits == UNLIMITED else FULL)
        for _ in range(needed)
    ]
    if is_denied:
        await bench.spent(principals[0])
    return principals


def _usable(rpm: int) -> int:
    """Whole batches within a limit."""
    return rpm // BATCH * BATCH


def _room(principal: Principal) -> int:
    return _usable(principal.key_limits.rpm or MANY) or BATCH


def _turns(bench: Bench, principals: list[Principal], *, is_denied: bool) -> Callable[[], Awaitable[None]]:
    pairs = [bench.pair(principal, is_denied=is_denied) for principal in principals]
    made = 0

    async def turn() -> None:
        nonlocal made
        made += 1
        await pairs[made % len(pairs)]()

    return turn


def _row(name: str, in_flight: int, rounds: list[Cost], pings: list[Cost]) -> dict[str, Any]:
    def median(of: str, costs: list[Cost]) -> float:
        return statistics.median(getattr(cost, of) for cost in costs)

    names = ("operations_per_s", "client_us", "server_us")
    row: dict[str, Any] = {"case": name, "in_flight": in_flight}
    for of in names:
        row[of] = round(median(of, rounds), 1)
        row[f"{of}_to_ping"] = round(median(of, rounds) / median(of, pings), 2)
    return row


def _row_apart(name: str, figures: list[tuple[float, float | None]]) -> dict[str, Any]:
    acquire_us = statistics.median(acquire for acquire, _ in figures)
    settled = [settle for _, settle in figures if settle is not None]
    settle_us = statistics.median(settled) if settled else None
    return {
        "case": name,
        "acquire_server_us": round(acquire_us, 1),
        "settle_server_us": None if settle_us is None else round(settle_us, 1),
        "together_server_us": round(acquire_us + (settle_us or 0), 1),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows for people."""
    head = ("in flight", "pairs/s", "÷ PING", "client µs", "÷ PING", "server µs", "÷ PING")
    lines = [f"{'acquire + settle':28}" + "".join(f"{name:>10}" for name in head)]
    for row in (row for row in rows if "in_flight" in row):
        figures = [f"{row['in_flight']:>10}"]
        for of, digits in (("operations_per_s", 0), ("client_us", 1), ("server_us", 1)):
            figures += [f"{row[of]:>10.{digits}f}", f"{row[f'{of}_to_ping']:>10.2f}"]
        lines.append(f"{row['case']:28}" + "".join(figures))
    lines += [
        "",
        f"{'server µs of one call':28}" + "".join(f"{name:>10}" for name in ("acquire", "settle", "together")),
    ]
    for row in (row for row in rows if "in_flight" not in row):
        shown = (row[f"{name}_server_us"] for name in ("acquire", "settle", "together"))
        lines.append(f"{row['case']:28}" + "".join(f"{'–' if us is None else f'{us:.1f}':>10}" for us in shown))
    return "\n".join(lines)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.quota", description=__doc__)
    parser.add_argument("--calls", type=int, default=20_000, help="calls per case and round")
    parser.add_argument("--repeat", type=int, default=3, help="rounds")
    parser.add_argument("--json", action="store_true", help="rows as JSON")
    parser.add_argument("--scripts", action="store_true", help="one call of each script alone, also as state grows")
    parser.add_argument("--rounds", type=int, default=25, help="rounds of --scripts")
    parser.add_argument("--capacity", action="store_true", help="how many requests one core of Redis carries")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each load in each round of --capacity")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Redis(Path(folder), settings={"maxmemory": "2gb"}) as server:
        if options.scripts:
            rows = quota_scripts.run(server, rounds=options.rounds, say=_say)
            sys.stdout.write((json.dumps(rows, indent=1) if options.json else quota_scripts.table(rows)) + "\n")
            return 0
        if options.capacity:
            rows = quota_capacity.run(server, rounds=options.repeat, seconds=options.seconds, say=_say)
            sys.stdout.write((json.dumps(rows, indent=1) if options.json else quota_capacity.table(rows)) + "\n")
            return 0
        state = PublishedState(server.url)
        state.stamp()
        rows = asyncio.run(run(state, calls=options.calls, repeat=options.repeat, say=_say))
        state.close()
    sys.stdout.write((json.dumps(rows, indent=1) if options.json else table(rows)) + "\n")
    return 0


def _say(progress: str) -> None:
    sys.stderr.write(f"{progress}\n")


if __name__ == "__main__":
    sys.exit(main())
