"""What all controls cost, side by side: ``python -m tests.bench.compare [--quick] [--with-litellm] [--json FILE]``.

Direct to a mock Ollama that costs next to nothing, through nginx's ``proxy_pass``, through the gateway with one worker
and with two, and through LiteLLM's proxy. Everything runs at once, and every round asks all of them in turn, so that
whatever else the machine does hits all alike: figures are medians of rounds, and ratios are formed within a round.
Servers under test share one core, everything else the other ones (``targets``).

``--write docs/PERFORMANCE.md`` writes the tables between the marks of that document, and the plots beside it. Without
``--quick`` it takes about ten minutes. What is not on the machine (nginx; LiteLLM and py-spy are installed on demand)
is left out, and the result says so.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from deploy.local.redis import Redis
from tests.bench import performance_document, processes, profile, quota_capacity, result, targets
from tests.bench.cases import CASES, Case, quick
from tests.bench.figures import Samples
from tests.bench.litellm_proxy import litellm
from tests.bench.load import LoadError
from tests.bench.measure import Sample, measured, settled
from tests.bench.quota_capacity import Carried
from tests.bench.result import Result
from tests.bench.targets import LITELLM, OURS, OURS_TWO, REDIS, Cores, FastOllama, Target, UnavailableError
from tests.e2e.harness import running


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How often and how long."""

    cases: Sequence[Case]
    rounds: int
    seconds: float
    profile_s: float


FULL = Plan(cases=CASES, rounds=5, seconds=0.7, profile_s=6)
QUICK = Plan(cases=quick(), rounds=3, seconds=0.6, profile_s=4)


@dataclass(slots=True)
class Fleet:
    """The targets that run, by name, and why others do not."""

    targets: dict[str, Target] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    # What a target waits for, by process id: they go first where a case is quiet.
    beside: list[int] = field(default_factory=list)


@contextlib.contextmanager
def fleet(cores: Cores, *, with_litellm: bool) -> Iterator[Fleet]:
    """Everything that is measured, running."""
    with contextlib.ExitStack() as stack:
        mock = stack.enter_context(running(FastOllama(cores)))
        wanted: list[tuple[str, AbstractContextManager[Target]]] = [
            (targets.DIRECT, targets.direct(mock)),
            (targets.NGINX, targets.nginx(mock, cores)),
            (OURS, targets.ours(mock, cores)),
            (OURS_TWO, targets.ours(mock, cores, workers=2, name=OURS_TWO)),
        ]
        if with_litellm:
            wanted.append((LITELLM, litellm(mock, cores)))
        made = Fleet()
        for name, target in wanted:
            try:
                made.targets[name] = stack.enter_context(target)
            except UnavailableError as why:
                made.missing[name] = str(why)
        if not with_litellm:
            made.missing[LITELLM] = "not asked for (--with-litellm)"
        redis = [pid for target in made.targets.values() for pid in target.pids.get(REDIS, ())]
        made.beside = [os.getpid(), mock.pid, *redis]
        yield made


async def rounds(made: Fleet, plan: Plan, say: Callable[[str], None]) -> list[Sample]:
    """All cases, round by round, the targets in turn; every other round in the opposite order."""
    samples: list[Sample] = []
    for number in range(plan.rounds):
        began_s = time.monotonic()
        for case in (case for case in plan.cases if case.name not in made.missing):
            for connections in case.connections:
                further = case.also if connections == case.also_connections else ()
                names = [name for name in (*case.targets, *further) if name in made.targets]
                for name in names if number % 2 == 0 else reversed(names):
                    target = made.targets[name]
                    try:
                        with processes.quiet(made.beside) if case.is_quiet else contextlib.nullcontext():
                            samples.append(await measured(target, case, connections, plan.seconds))
                    except LoadError as fault:
                        raise LoadError(f"{name}, {case.name}, {connections} connections: {fault}") from fault
                    await settled(target)
        say(f"round {number + 1} of {plan.rounds} took {time.monotonic() - began_s:.0f} s")
    return samples


def compared(plan: Plan, *, with_litellm: bool, say: Callable[[str], None]) -> Result:
    """The whole comparison."""
    cores = Cores.of_this_machine()
    with fleet(cores, with_litellm=with_litellm) as made:
        made.missing |= _impossible(plan.cases)
        for name, why in made.missing.items():
            say(f"{name} is left out: {why}")
        processes.pin([os.getpid()], cores.others)
        samples = uvloop.run(rounds(made, plan, say))
        stages = profile.of(made.targets[OURS], seconds=plan.profile_s, say=say)
    return result.of(
        Samples(samples),
        stages,
        full_redis=_full_redis(plan, say),
        cores=cores,
        missing=made.missing,
        litellm=made.targets.get(LITELLM),
        rounds=plan.rounds,
    )


def _impossible(cases: Sequence[Case]) -> dict[str, str]:
    """The cases that this machine does not let anybody measure, and why."""
    try:
        with processes.quiet([os.getpid()]):
            return {}
    except OSError as fault:
        return {case.name: f"cores may not be kept awake: {fault.strerror}" for case in cases if case.is_quiet}


def _full_redis(plan: Plan, say: Callable[[str], None]) -> Sequence[Carried]:
    """What a core of a Redis of its own carries when all others have ended."""
    load = quota_capacity.FULL_CORE
    with tempfile.TemporaryDirectory() as folder, Redis(Path(folder), settings={"maxmemory": "2gb"}) as server:
        carried, _ = quota_capacity.measured(server, loads=(load,), rounds=plan.rounds, seconds=2.0, say=say)
    return carried[load.name]


def main() -> int:
    """The command; 1 when a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.compare", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only what the goals are about; two minutes")
    parser.add_argument("--rounds", type=int, help="how often everything is measured")
    parser.add_argument("--with-litellm", action="store_true", help="also LiteLLM's proxy, installed on demand")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample and figure")
    parser.add_argument("--write", type=Path, metavar="DOCUMENT", help="fill this document, and plots beside it")
    options = parser.parse_args()
    plan = QUICK if options.quick else FULL
    if options.rounds:
        plan = Plan(cases=plan.cases, rounds=options.rounds, seconds=plan.seconds, profile_s=plan.profile_s)
    found = compared(plan, with_litellm=options.with_litellm, say=_say)
    sys.stdout.write(performance_document.text_of(found))
    if options.json:
        options.json.write_bytes(result.to_json(found))
    if options.write:
        performance_document.write(options.write, found)
    return 0 if all(goal.holds is not False for goal in found.goals) else 1


def _say(progress: str) -> None:
    sys.stderr.write(f"{progress}\n")


if __name__ == "__main__":
    sys.exit(main())
