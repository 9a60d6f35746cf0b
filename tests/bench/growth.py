"""What grows with a deployment, and what must not: ``python -m tests.bench.growth [--quick] [--only NAME]``.

``keys``: the cost of a request with 10 000 keys, 1 000 models and 100 tenants that are at their limits, beside a
deployment with one of each, in turn. ``streams``: memory of a worker by open stream that has nothing to say. ``drain``:
a backlog of a million usage events, and how fast it comes into Postgres. ``--write docs/PERFORMANCE.md`` fills the part
of that document. With 1 it ends when a goal is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from tests.bench import backlog, crowded, fast_replies, growth_document, processes, streams, targets
from tests.bench.backlog import Drained
from tests.bench.crowded import Cost
from tests.bench.streams import Open
from tests.bench.targets import Cores, FastOllama, Target
from tests.e2e.harness import running

KEYS, STREAMS, DRAIN = "keys", "streams", "drain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much."""

    keys: int
    models: int
    tenants: int
    rounds: int
    seconds: float
    streams: tuple[int, ...]
    idle_s: float
    events: int


FULL = Plan(
    keys=10_000, models=1_000, tenants=100, rounds=5, seconds=1.0,
    streams=(1_000, 5_000, 10_000), idle_s=12, events=1_000_000,
)  # fmt: skip
QUICK = Plan(
    keys=1_000, models=200, tenants=20, rounds=3, seconds=0.6, streams=(500, 1_000), idle_s=2, events=50_000
)  # fmt: skip


@dataclass(slots=True)
class Growth:
    """Everything that was found; empty where it was not looked for."""

    costs: Sequence[Cost] = field(default_factory=list)
    streams: Sequence[Open] = field(default_factory=list)
    drained: Drained | None = None


@contextlib.contextmanager
def one(cores: Cores, *options: str, models: int = 0) -> Iterator[Target]:
    """A gateway in front of a mock of its own."""
    with running(FastOllama(cores, extra_models=models)) as mock, targets.ours(mock, cores, options=options) as target:
        yield target


def grown(plan: Plan, only: str | None, say: Callable[[str], None]) -> Growth:
    """Looks at everything, or at one thing only."""
    found = Growth()
    cores = Cores.of_this_machine()
    if only in (None, DRAIN):
        with one(Cores.shared()) as target:
            found.drained = backlog.drained(target, events=plan.events)
        say(f"drained {found.drained.events_per_s:.0f} events/s")
    everywhere = processes.cores()
    processes.pin([os.getpid()], cores.others)
    if only in (None, STREAMS):
        found.streams = _streams(cores, plan)
        say(f"{found.streams[-1].bytes_per_stream / 1000:.1f} KB by open stream")
    if only in (None, KEYS):
        own = len(fast_replies.MODELS)
        with one(cores) as small, one(cores, models=plan.models - own) as large:
            found.costs = crowded.compared(
                small,
                large,
                keys=plan.keys,
                models=plan.models,
                tenants=plan.tenants,
                rounds=plan.rounds,
                seconds=plan.seconds,
            )
    processes.pin([os.getpid()], everywhere)
    return found


def _streams(cores: Cores, plan: Plan) -> Sequence[Open]:
    with one(cores, "--set=OLLAMA_MAX_CONNECTIONS=20000") as target:
        gateway = target.gateway
        assert gateway is not None
        most = streams.most()
        counts = sorted({min(count, most) for count in plan.streams})
        # A tenant may have a thousand at once.
        keys = []
        for number in range(counts[-1] // targets.CONCURRENT + 1):
            gateway.tenant(f"streams-{number}", concurrent=targets.CONCURRENT)
            keys.append(gateway.limited_key(f"streams-{number}", **targets.LIMITS))
        return uvloop.run(streams.opened(target, keys, counts, idle_s=plan.idle_s))


def to_json(found: Growth) -> str:
    """For programs."""
    document = {
        "costs": [dataclasses.asdict(cost) for cost in found.costs],
        "streams": [dataclasses.asdict(one) for one in found.streams],
        "drained": found.drained and dataclasses.asdict(found.drained) | {"events_per_s": found.drained.events_per_s},
    }
    return json.dumps(document, indent=1) + "\n"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.growth", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of it")
    parser.add_argument("--only", choices=(KEYS, STREAMS, DRAIN))
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--write", type=Path, metavar="DOCUMENT")
    options = parser.parse_args()
    found = grown(QUICK if options.quick else FULL, options.only, _say)
    sys.stdout.write(growth_document.text_of(found.costs, found.streams, found.drained))
    if options.json:
        options.json.write_text(to_json(found))
    if options.write:
        growth_document.write(options.write, found.costs, found.streams, found.drained)
    return 0 if growth_document.all_hold(found.costs, found.streams, found.drained) else 1


def _say(progress: str) -> None:
    sys.stderr.write(f"{progress}\n")


if __name__ == "__main__":
    sys.exit(main())
