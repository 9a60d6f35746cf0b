"""What a comparison has found, as one value: samples, stages, goals, and what it was found on."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.bench.figures import Samples
from tests.bench.goals import Goal, goals
from tests.bench.profile import Stage
from tests.bench.quota_capacity import Carried
from tests.bench.targets import Cores, Target


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Everything. ``machine``: what somebody needs to judge the figures; ``missing``: targets, and why."""

    samples: Samples
    stages: Sequence[Stage]
    goals: Sequence[Goal]
    machine: Mapping[str, str]
    missing: Mapping[str, str]
    rounds: int


def of(
    samples: Samples,
    stages: Sequence[Stage],
    *,
    full_redis: Sequence[Carried] = (),
    cores: Cores,
    missing: Mapping[str, str],
    litellm: Target | None,
    rounds: int,
) -> Result:
    """The result of a run that has just ended."""
    machine = {
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d"),
        "processor": _processor(),
        "cores": str(len({*cores.servers, *cores.others})),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "nginx": _first_line("nginx", "-v"),
        "load when it ended": f"{os.getloadavg()[0]:.1f}",
    }
    if litellm is not None:
        machine["litellm"] = litellm.version
    return Result(
        samples=samples,
        stages=stages,
        goals=goals(samples, full_redis),
        machine=machine,
        missing=missing,
        rounds=rounds,
    )


def to_json(result: Result) -> bytes:
    """For programs: every sample, and every goal with its figure."""
    document = {
        "machine": dict(result.machine),
        "rounds": result.rounds,
        "missing": dict(result.missing),
        "goals": [dataclasses.asdict(goal) | {"holds": goal.holds} for goal in result.goals],
        "stages": [dataclasses.asdict(stage) for stage in result.stages],
        "samples": [dataclasses.asdict(sample) for sample in result.samples.all],
    }
    return json.dumps(document, indent=1).encode() + b"\n"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _first_line(program: str, option: str) -> str:
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        return "none"
    done = subprocess.run([found, option], check=False, capture_output=True, text=True)
    return (done.stdout + done.stderr).strip().splitlines()[0].removeprefix("nginx version: ")
