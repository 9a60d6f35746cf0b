"""A backlog of usage events, and how fast the control plane brings it into Postgres.

The control plane stands still (SIGSTOP) while the events are written into the streams, as workers write them, with the
counters that belong to them; then it goes on, and until the streams are empty the clock runs.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import redis as redis_client

from shared import keyspace, layout, records
from shared.keyspace import KeyId, Period, TenantId
from shared.records import UsageEvent
from tests.bench import fast_replies, processes
from tests.bench.targets import CONTROL_PLANE, POSTGRES, REDIS, Target
from tests.e2e.harness import Gateway
from tests.fakes.counted import counted

TENANTS, KEYS_PER_TENANT = 100, 10
_PIPELINE = 2000
_TIMEOUT_S = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """How a backlog was drained. CPU in µs per event by role."""

    events: int
    seconds: float
    cpu_us: dict[str, float]

    @property
    def events_per_s(self) -> float:
        """Events that were in Postgres for each second."""
        return self.events / self.seconds


@contextlib.contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    """Processes that stand still."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def drained(target: Target, *, events: int) -> Drained:
    """Fills the streams with so many events and waits until they are empty. Raises ``TimeoutError``."""
    gateway = target.gateway
    assert gateway is not None
    control_planes = list(target.pids[CONTROL_PLANE])
    with stopped(control_planes):
        _fill(gateway, events)
    roles = (CONTROL_PLANE, POSTGRES, REDIS)
    before = {role: _cpu_us(target, role) for role in roles}
    began_s = time.monotonic()
    while gateway.undrained():
        if time.monotonic() - began_s > _TIMEOUT_S:
            raise TimeoutError(f"{gateway.undrained()} of {events} events are still not in Postgres")
        time.sleep(0.05)
    seconds = time.monotonic() - began_s
    after = {role: _cpu_us(target, role) for role in roles}
    recorded = gateway.rows("SELECT count(*) AS n FROM gateway.audit_log WHERE request_id LIKE 'backlog-%'")[0]["n"]
    if recorded != events:
        raise RuntimeError(f"{recorded} of {events} events are in the ledger")
    cpu_us = {role: (after[role] - before[role]) / events for role in roles}
    return Drained(events=events, seconds=seconds, cpu_us=cpu_us)


def _cpu_us(target: Target, role: str) -> float:
    return processes.cpu_us({one for pid in target.pids[role] for one in processes.family(pid)})


def _fill(gateway: Gateway, events: int) -> None:
    """Writes events of a thousand keys, and what the workers would have counted for them."""
    random.seed(1)
    keys = [
        (TenantId(str(uuid.uuid4())), [KeyId(str(uuid.uuid4())) for _ in range(KEYS_PER_TENANT)])
        for _ in range(TENANTS)
    ]
    used: defaultdict[str, Counter[Period]] = defaultdict(Counter)
    # Any: the client's own annotations mix its synchronous and asynchronous answers.
    client: Any = redis_client.Redis.from_url(gateway.description["redis_url"])
    with contextlib.closing(client):
        for first in range(0, events, _PIPELINE):
            with client.pipeline(transaction=False) as pipe:
                for _ in range(min(_PIPELINE, events - first)):
                    tenant_id, key_ids = random.choice(keys)
                    event = _event(tenant_id, random.choice(key_ids))
                    shard = keyspace.shard_of(tenant_id)
                    pipe.xadd(keyspace.usage(shard), {"e": records.encode(event)})
                    tokens = event.prompt_tokens + event.completion_tokens
                    for scope in (keyspace.key_scope(event.key_id), keyspace.tenant_scope(tenant_id)):
                        for period in (event.day, event.day[:6], layout.TOTAL):
                            used[keyspace.counters(shard, scope)][Period(period)] += tokens
                pipe.execute()
        with client.pipeline(transaction=False) as pipe:
            for name, by_period in used.items():
                pipe.set(name, counted({period: layout.Counter(tokens) for period, tokens in by_period.items()}))
            pipe.execute()


def _event(tenant_id: TenantId, key_id: KeyId) -> UsageEvent:
    now_s = time.time()
    request_id = uuid.uuid4().hex
    return UsageEvent(
        event_id=request_id,
        request_id=f"backlog-{request_id}",
        tenant_id=tenant_id,
        key_id=key_id,
        day=time.strftime("%Y%m%d", time.gmtime(now_s)),
        created_at_ms=int(now_s * 1000),
        dialect="ollama",
        endpoint="/api/chat",
        outcome="completed",
        status=200,
        model=f"{fast_replies.REPLY}:latest",
        backend="fast",
        prompt_tokens=random.randrange(10, 500),
        completion_tokens=random.randrange(10, 500),
        duration_ms=random.randrange(100, 9000),
        ttft_ms=random.randrange(10, 900),
        client_ip="127.0.0.1",
    )
