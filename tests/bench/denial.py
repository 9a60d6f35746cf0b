"""Fail closed: ``python -m tests.bench.denial [--requests 10000] [--seed 1] [--only KIND]``.

One data plane whose Redis is away again and again, each time in another way, for another number of clients: its link is
held, swallows, lags, drips, hangs or refuses, the server is stopped, is out of memory, or is somebody's replica. What
is asked while Redis is away for certain must be denied, and must never reach a backend, also later, when what was
queued comes through. Some requests are on their way when it happens; they are not judged.

Printed are the denials by kind and how long they took. Ends with status 1 when anything was served or went upstream.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import redis as redis_client

from tests.e2e.accounts import assert_invariants
from tests.e2e.crowd import Answer, Client, ask_all, chat
from tests.e2e.harness import body_of, eventually
from tests.fakes.tcp_proxy import Link
from tests.faults.fleet import DATA, Fleet, fleet

PATHS = ("/api/chat", "/v1/chat/completions")
PER_OUTAGE = 200
SERVES_AGAIN_WITHIN_S = 60.0
# A decision takes some hundred bytes: far longer than an admission may wait.
_DRIP_BYTES_PER_S = 100

type Outage = Callable[[Fleet], contextlib.AbstractContextManager[None]]


@contextlib.contextmanager
def _on_link(fleet: Fleet, spoil: Callable[[Link], None]) -> Iterator[None]:
    link = fleet.link(f"{DATA}-1", "redis")
    spoil(link)
    try:
        yield
    finally:
        # What was swallowed leaves both sides in the middle of a sentence.
        link.reset()
        link.heal()


def _spoiling(cuts: bool = False, **wrong: Any) -> Outage:
    def spoil(link: Link) -> None:
        for name, value in wrong.items():
            setattr(link, name, value)
        if cuts:
            link.reset()

    return lambda fleet: _on_link(fleet, spoil)


@contextlib.contextmanager
def _stopped(fleet: Fleet) -> Iterator[None]:
    fleet.signal("redis", signal.SIGSTOP)
    try:
        yield
    finally:
        fleet.signal("redis", signal.SIGCONT)


@contextlib.contextmanager
def _out_of_memory(fleet: Fleet) -> Iterator[None]:
    client = fleet.gateway.redis
    before = client.config_get("maxmemory")["maxmemory"]
    client.config_set("maxmemory", 1)
    try:
        yield
    finally:
        client.config_set("maxmemory", before or 0)


@contextlib.contextmanager
def _replica(fleet: Fleet) -> Iterator[None]:
    fleet.gateway.redis.replicaof("127.0.0.1", 1)
    try:
        yield
    finally:
        fleet.gateway.redis.replicaof("NO", "ONE")


OUTAGES: dict[str, Outage] = {
    "held": _spoiling(hold_requests=True, hold_replies=True),
    "requests held": _spoiling(hold_requests=True),
    "replies held": _spoiling(hold_replies=True),
    "requests lost": _spoiling(swallow_requests=True),
    "replies lost": _spoiling(swallow_replies=True),
    "a second late": _spoiling(delay=lambda: 1.0),
    "drips": _spoiling(bytes_per_s=_DRIP_BYTES_PER_S),
    "hangs": _spoiling(cuts=True, hangs=True, hold_requests=True, hold_replies=True),
    "refuses": _spoiling(cuts=True, refuses=True, hold_requests=True, hold_replies=True),
    "stopped": _stopped,
    "out of memory": _out_of_memory,
    "a replica": _replica,
}


async def burst(url: str, key: str, numbers: Sequence[int], source: random.Random) -> list[Answer]:
    """Asks for all numbers, some at a time, in both dialects."""
    waiting, answers = iter(numbers), []

    async def ask_on() -> None:
        client = Client(url, key)
        for number in waiting:
            body = {**chat(number, num_predict=None), "stream": source.random() < 0.5}
            answers.append(await client.ask(body, source.choice(PATHS)))
            if source.random() < 0.2:
                await asyncio.sleep(source.uniform(0, 0.05))
        client.close()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(source.choice((1, 4, 16, 48))):
            tasks.create_task(ask_on())
    return answers


def run(whole: Fleet, kinds: Sequence[str], *, requests: int, seed: int, told: Callable[[str], None]) -> dict[str, Any]:
    """Outage after outage until so many requests were asked; what became of them."""
    gateway, source = whole.gateway, random.Random(seed)
    gateway.tenant("denied")
    key = gateway.key("denied")
    gateway.wait_for_models(key, "llama3.2:latest")
    took_ms: dict[str, list[float]] = defaultdict(list)
    statuses: Counter[int] = Counter()
    judged: set[int] = set()
    others: list[Answer] = []
    number = 0
    while len(judged) < requests:
        kind = source.choice(kinds)
        before, number = range(number, number + 8), number + 8
        underway = _Underway(gateway.url, key, before, source.random())
        with OUTAGES[kind](whole):
            if kind in ("out of memory", "a replica", "stopped"):
                # Until the kernel has stopped it, or the next decision that it makes.
                eventually(lambda: ask_all([gateway.url], key, [chat()])[0].status == 503, what=kind)
            time.sleep(0.02)
            numbers, number = range(number, number + PER_OUTAGE), number + PER_OUTAGE
            answers = asyncio.run(burst(gateway.url, key, numbers, source))
        others += underway.answers()
        judged.update(numbers)
        statuses.update(answer.status for answer in answers)
        took_ms[kind] += [1000 * answer.took_s for answer in answers]
        eventually(lambda: _serves(whole, key), timeout_s=SERVES_AGAIN_WITHIN_S, what=f"service after {kind}")
        met = dict(Counter(answer.status for answer in answers))
        told(
            f"{len(judged):6} {kind:15} {met} p99 {_share(took_ms[kind], 0.99):.0f} ms, max {max(took_ms[kind]):.0f} ms"
        )
    asked = {body_of(request)["messages"][-1]["content"] for mock in whole.mocks for request in mock.requests()}
    upstream = sorted(one for one in judged if f"number-{one}" in asked)
    assert_invariants(gateway, whole.mocks, others, may_fail={0, 503}, attempts=2, timeout_s=90)
    every = [value for values in took_ms.values() for value in values]
    return {
        "seed": seed,
        "denied": len(judged),
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "upstream": len(upstream),
        "ms": {"p50": _share(every, 0.5), "p99": _share(every, 0.99), "max": max(every)},
        "kinds": {
            kind: {"requests": len(values), "p50": _share(values, 0.5), "p99": _share(values, 0.99), "max": max(values)}
            for kind, values in sorted(took_ms.items())
        },
    }


class _Underway:
    """Requests that are on their way when the outage begins."""

    def __init__(self, url: str, key: str, numbers: Sequence[int], seed: float) -> None:
        self._answers: list[Answer] = []
        source = random.Random(seed)
        self._thread = threading.Thread(
            target=lambda: self._answers.extend(asyncio.run(burst(url, key, numbers, source)))
        )
        self._thread.start()

    def answers(self) -> list[Answer]:
        """What they were told, once all are."""
        self._thread.join()
        return self._answers


def _serves(whole: Fleet, key: str) -> bool:
    try:
        answers = ask_all([whole.gateway.url], key, [chat(num_predict=16)] * 2)
    except redis_client.RedisError:
        return False
    return {answer.status for answer in answers} == {200}


def _share(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000, help="that are asked while Redis is away (10000)")
    parser.add_argument("--seed", type=int, default=1, help="of the outages (1)")
    parser.add_argument("--only", choices=OUTAGES, help="one kind of outage")
    parser.add_argument("--json", action="store_true", help="only the summary")
    options = parser.parse_args()

    def told(line: str) -> None:
        if not options.json:
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()

    with tempfile.TemporaryDirectory() as state, fleet(Path(state), data_planes=1, control_planes=1) as whole:
        kinds = [options.only] if options.only else list(OUTAGES)
        found = run(whole, kinds, requests=options.requests, seed=options.seed, told=told)
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    return 0 if not found["upstream"] and set(found["statuses"]) == {"503"} else 1


if __name__ == "__main__":
    sys.exit(main())
