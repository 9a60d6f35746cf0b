"""What one call of each admission script costs the server: ``python -m tests.bench.quota --scripts``.

One Redis with the users as deployed; the calls are sent by the data plane's, packed as a worker packs them, in batches.
In each round every case has its turn: a reference script that gets the keys and arguments of an admission and does
nothing, then ``acquire``, then ``renew``; after more than a second, so that settlements find their second over as
those of real requests do, ``settle``. First the server holds little; then 10 000 keys, 10 000 open leases of another
and a million waiting events, all at once. The machine has other work as well, so what is shown is the lower quartile
of all rounds beside the median: microseconds that the server counts for a call, and CPU time of its process for it,
which includes reading it, writing the reply and the append-only file. The former counts the time of whoever else had
the CPU as well, so on a busy machine the latter says more; the ratio to the reference is of it.
"""

from __future__ import annotations

import statistics
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis as redis_client

from dataplane.quota.calls import LEASE_RECORD_EXTRA_MS, LEASE_TTL_MS, PrincipalCalls
from dataplane.quota.leases import read_reply
from dataplane.quota.scripts import ACQUIRE, RENEW, Script, bulk
from dataplane.values import Demand, Lease, Limits, Principal
from deploy.local.redis import Redis
from shared import keyspace, records
from shared.keyspace import LeaseId, Shard, TenantId
from shared.quota.library import Library
from tests.fakes.published_state import PublishedState
from tests.integration.quota.caller import event, incarnation

BATCH = 100
SETTLED_AFTER_S = 1.05
MANY = 10**9
DEMAND = Demand(prompt_bound=400, prompt_estimate=60, num_predict=256)
BUDGETS = {"budget_day": 10**12, "budget_month": 10**12, "budget_total": 10**12}
# Everything that can be limited is, for key and tenant.
FULL = Limits(rpm=MANY, tpm=MANY, concurrent=100_000, **BUDGETS)
# Up to 128 requests/min the exact moments are looked at.
EXACT = Limits(rpm=128, tpm=MANY, concurrent=100_000, **BUDGETS)
# The last check refuses.
EXHAUSTED = Limits(rpm=MANY, tpm=MANY, concurrent=100_000, **{**BUDGETS, "budget_total": 1})
KEYS, TENANTS = 10_000, 100
OPEN_LEASES, EVENTS = 10_000, 1_000_000
# Behind the names of cases on a server that holds all of these.
MUCH = ", much"
REFERENCE = Script(
    "nothing",
    Library("local function nothing() return 1 end redis.register_function('nothing' .. SUFFIX, nothing)"),
)
SCRIPTS = ("reference", "acquire", "renew", "settle")

type Costs = dict[tuple[str, str], list[Cost]]


@dataclass(frozen=True, slots=True)
class Cost:
    """Microseconds of one call: as the server counts them, and of CPU time of its process."""

    counted_us: float
    cpu_us: float


@dataclass(frozen=True, slots=True)
class Case:
    """Which principals make the calls of a round, and what is decided."""

    principals: Callable[[int], Sequence[Principal]]
    decision: bytes = b"admitted"


class Server:
    """The server, seen by whoever runs it and by a data plane."""

    def __init__(self, server: Redis) -> None:
        self.state = PublishedState(server.url)
        self.state.stamp()
        self.incarnation = incarnation(self.state)
        self._pid = server.pid
        client = redis_client.Redis.from_url(server.url_of("dataplane"), protocol=2, socket_timeout=60)
        self._connection: Any = client.connection_pool.get_connection()
        self.state.load(REFERENCE.library)

    def send(self, calls: Sequence[bytes]) -> list[Any]:
        """Replies to packed calls that leave together."""
        self._connection.send_packed_command([b"".join(calls)])
        return [self._connection.read_response() for _ in calls]

    def measured(self, calls: Sequence[bytes]) -> tuple[list[Any], Cost]:
        """The same, and what each of them cost."""
        self.state.client.config_resetstat()
        before_us = self._cpu_us()
        replies = self.send(calls)
        cpu_us = self._cpu_us() - before_us
        counted_us = self.state.client.info("commandstats")["cmdstat_fcall"]["usec"]
        return replies, Cost(counted_us / len(calls), cpu_us / len(calls))

    def close(self) -> None:
        self._connection.disconnect()
        self.state.close()

    def _cpu_us(self) -> float:
        """CPU time of the server's main thread. Source: Linux, Documentation/scheduler/sched-stats.rst."""
        return int(Path(f"/proc/{self._pid}/schedstat").read_text().split()[0]) / 1000


def run(server: Redis, *, rounds: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """One row for each case and script."""
    target = Server(server)
    try:
        costs: Costs = defaultdict(list)
        for made in (_cases, _cases_of_much):
            cases = made(target)
            for number in range(rounds + 1):
                say(f"round {number} of {rounds}")
                # The first round warms up.
                _round(target, cases, number, costs if number else defaultdict(list))
    finally:
        target.close()
    return [
        _row(case, script, found, costs[case, SCRIPTS[0]])
        for (case, script), found in sorted(costs.items(), key=_order)
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """The rows for people."""
    head = ("µs counted", "median", "÷ reference", "µs of CPU", "median")
    lines = [f"{'one call':42}" + "".join(f"{name:>13}" for name in head)]
    for row in rows:
        figures = (row[name] for name in ("counted_us", "counted_us_median", "to_reference", "cpu_us", "cpu_us_median"))
        lines.append(f"{row['case']:32}{row['script']:10}" + "".join(f"{figure:>13.1f}" for figure in figures))
    return "\n".join(lines)


def _order(entry: tuple[tuple[str, str], object]) -> tuple[bool, str, int]:
    (case, script), _ = entry
    return MUCH in case, case, SCRIPTS.index(script)


def _cases(server: Server) -> dict[str, Case]:
    """On a server that holds next to nothing."""
    state = server.state
    alone = state.principal(key_limits=FULL, tenant_limits=FULL)
    refused = _principals(state, TENANTS, EXHAUSTED)
    return {
        "1 key": Case(lambda _: [alone] * BATCH),
        "1 key, exact moments": Case(lambda _: [state.principal(key_limits=EXACT, tenant_limits=EXACT)] * BATCH),
        f"{TENANTS} tenants, exhausted": Case(lambda number: _some(refused, number), b"budget_total"),
    }


def _cases_of_much(server: Server) -> dict[str, Case]:
    """On one that holds much; it does afterwards."""
    state = server.state
    crowd = _principals(state, KEYS, FULL)
    # In shards of their own, so that the others do not see what fills these.
    busy, full, alone = (
        state.principal(key_limits=FULL, tenant_limits=FULL, tenant_id=_tenant_in(shard))
        for shard in keyspace.SHARDS[:3]
    )
    calls = PrincipalCalls(busy, MANY)
    for _ in range(OPEN_LEASES // 100):
        ids = [LeaseId(uuid.uuid4().hex) for _ in range(100)]
        server.send([calls.acquire(server.incarnation, one, DEMAND, _event(one)).packed for one in ids])
    fill = "for _ = 1, ARGV[2] do redis.call('XADD', KEYS[1], '*', 'e', ARGV[1]) end"
    for _ in range(100):
        state.client.eval(fill, 1, keyspace.usage(full.shard), b"{}", EVENTS // 100)
    return {
        f"1 key{MUCH}": Case(lambda _: [alone] * BATCH),
        f"{KEYS} keys{MUCH}": Case(lambda number: _some(crowd, number)),
        f"{OPEN_LEASES} open leases of it{MUCH}": Case(lambda _: [busy] * BATCH),
        f"{EVENTS} waiting events{MUCH}": Case(lambda _: [full] * BATCH),
    }


def _round(server: Server, cases: dict[str, Case], number: int, costs: Costs) -> None:
    held = {name: _acquired(server, name, case, number, costs) for name, case in cases.items()}
    time.sleep(SETTLED_AFTER_S)
    for name, leases in held.items():
        settle = [
            calls.settle(server.incarnation, lease, _event(lease.lease_id), 260).packed for calls, lease in leases
        ]
        if settle:
            replies, cost = server.measured(settle)
            _require(replies, b"settled")
            costs[name, "settle"].append(cost)


def _acquired(server: Server, name: str, case: Case, number: int, costs: Costs) -> list[tuple[PrincipalCalls, Lease]]:
    """Does nothing, acquires and renews; gives the leases."""
    principals = case.principals(number)
    ids = [LeaseId(uuid.uuid4().hex) for _ in principals]
    packed = [PrincipalCalls(principal, 16 * MANY) for principal in principals]
    acquire = [
        calls.acquire(server.incarnation, lease_id, DEMAND, _event(lease_id)).packed
        for calls, lease_id in zip(packed, ids, strict=True)
    ]
    _, cost = server.measured([call.replace(bulk(ACQUIRE.function), bulk(REFERENCE.function)) for call in acquire])
    costs[name, "reference"].append(cost)
    replies, cost = server.measured(acquire)
    _require(replies, case.decision)
    costs[name, "acquire"].append(cost)
    if case.decision != b"admitted":
        return []
    leases = [_lease(principal.shard, *one) for principal, *one in zip(principals, ids, replies, strict=True)]
    renew = [_renewal(server, principal, lease) for principal, lease in zip(principals, leases, strict=True)]
    replies, cost = server.measured(renew)
    _require(replies, b"renewed")
    costs[name, "renew"].append(cost)
    return list(zip(packed, leases, strict=True))


def _require(replies: Sequence[Any], decision: bytes) -> None:
    """Raises RuntimeError when other decisions were made than the case is about."""
    if any((reply if isinstance(reply, bytes) else reply[0]).partition(b" ")[0] != decision for reply in replies):
        raise RuntimeError(f"{replies[-1]} where {decision.decode()} was to be measured")


def _renewal(server: Server, principal: Principal, lease: Lease) -> bytes:
    key, tenant = keyspace.key_scope(principal.key_id), keyspace.tenant_scope(principal.tenant_id)
    shard = principal.shard
    names = (keyspace.fence(shard), keyspace.live(shard), keyspace.expiry(shard))
    slots = (keyspace.leases(shard, key), keyspace.leases(shard, tenant), keyspace.lease(shard, lease.lease_id))
    arguments = (server.incarnation, LEASE_TTL_MS, LEASE_RECORD_EXTRA_MS, lease.lease_id, key, tenant)
    return RENEW.call((*names, *slots), arguments).packed


def _lease(shard: Shard, lease_id: LeaseId, reply: bytes) -> Lease:
    day, month, num_predict = read_reply(reply)[1][8:]
    return Lease(
        lease_id=lease_id,
        shard=shard,
        day=str(day),
        month=str(month),
        prompt_bound=DEMAND.prompt_bound,
        num_predict=num_predict,
        taken_s=0.0,
    )


def _principals(state: PublishedState, count: int, limits: Limits) -> list[Principal]:
    tenants = [TenantId(str(uuid.uuid4())) for _ in range(TENANTS)]
    return [
        state.principal(key_limits=limits, tenant_limits=limits, tenant_id=tenants[number % TENANTS])
        for number in range(count)
    ]


def _some(principals: Sequence[Principal], number: int) -> list[Principal]:
    return [principals[(number * BATCH + at) % len(principals)] for at in range(BATCH)]


def _tenant_in(shard: Shard) -> TenantId:
    while True:
        tenant_id = TenantId(str(uuid.uuid4()))
        if keyspace.shard_of(tenant_id) == shard:
            return tenant_id


def _event(lease_id: LeaseId) -> bytes:
    return records.encode(event(lease_id, model="llama3.2:3b", client_ip="192.0.2.7"))


def _row(case: str, script: str, costs: Sequence[Cost], references: Sequence[Cost]) -> dict[str, Any]:
    row: dict[str, Any] = {"case": case, "script": script}
    for of in ("counted_us", "cpu_us"):
        figures = sorted(getattr(cost, of) for cost in costs)
        row[of] = round(figures[len(figures) // 4], 1)
        row[f"{of}_median"] = round(statistics.median(figures), 1)
    pairs = zip(costs, references, strict=True)
    row["to_reference"] = round(statistics.median(cost.cpu_us / reference.cpu_us for cost, reference in pairs), 2)
    return row
