"""Where the data plane's own CPU goes, by stage: a sampling profiler beside one case after the other.

py-spy looks at the stack of the worker's main thread 400 times a second from outside; a sample counts for the stage of
its innermost frame that belongs to one. What has no Python frame of ours is uvloop, granian's part in the main thread,
and the kernel. What the other threads cost, granian's runtime above all, is what the scheduler counted for them.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop

from tests.bench import processes, tools
from tests.bench.cases import CASES, REPLY_NATIVE, STREAM_NATIVE, STREAM_OPENAI, Case
from tests.bench.load import Load
from tests.bench.targets import DATA_PLANE, Target

CONNECTIONS = 32
_RATE = 400
_PROFILED = (REPLY_NATIVE, STREAM_NATIVE, STREAM_OPENAI)
SERVER = "event loop and kernel (uvloop, granian)"
THREADS = "other threads (granian's runtime, gRPC)"
_MAIN = "MainThread"

# The first that the innermost frames match; paths as py-spy writes them.
_STAGES: Sequence[tuple[str, str]] = (
    ("dataplane/stages/authenticate|dataplane/state/keys|shared/apikey", "authenticate"),
    ("dataplane/api/strict_json|dataplane/api/rules|dataplane/api/prompt_json|shared/modelname", "decode and check"),
    ("dataplane/stages/admit|dataplane/quota/leases|dataplane/bounds|dataplane/rates", "admit"),
    ("dataplane/stages/settle|dataplane/quota/settlements|dataplane/quota/retained|shared/records", "settle"),
    ("dataplane/quota/", "Redis link"),
    ("dataplane/stages/route|dataplane/policy|dataplane/state/", "route"),
    ("dataplane/upstream/|dataplane/native", "upstream"),
    ("dataplane/stages/relay", "relay"),
    ("dataplane/(metrics|readings|figures|access|tracing)|shared/logs", "metrics and logs"),
    ("dataplane/pipeline|dataplane/interrupt", "pipeline"),
    ("dataplane/api/", "HTTP: read, render, send"),
)
_FRAME = re.compile(r"\(([^()]*?):\d+\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stage's part of the worker's CPU in one case."""

    case: str
    name: str
    # Of all samples, 0 to 1.
    share: float


def of(target: Target, *, seconds: float, say: Callable[[str], None]) -> Sequence[Stage]:
    """The stages in each profiled case, the most expensive first; nothing where there is no profiler."""
    try:
        profiler = tools.installed("py-spy", "py-spy")
    except tools.MissingToolError as missing:
        say(f"no profile: {missing}")
        return ()
    stages: list[Stage] = []
    for case in CASES:
        if case.name in _PROFILED:
            stages += _profiled(target, case, profiler, seconds, say)
    return stages


def _profiled(
    target: Target, case: Case, profiler: Path, seconds: float, say: Callable[[str], None]
) -> Iterator[Stage]:
    worker = target.pids[DATA_PLANE][0]
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder, "stacks")
        command = [str(profiler), "record", "--pid", str(worker), "--rate", str(_RATE)]
        command += [
            "--duration",
            str(int(seconds)),
            "--format",
            "raw",
            "--output",
            str(written),
            "--nonblocking",
            "--threads",
        ]
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        before = processes.threads_ns(worker)
        uvloop.run(_under_load(target, case, child))
        spent = {thread: ns - before.get(thread, 0) for thread, ns in processes.threads_ns(worker).items()}
        _, complaint = child.communicate(timeout=30)
        if not written.exists():
            say(f"no profile of {case.name}: {complaint.strip()[-200:]}")
            return
        counted = by_stage(written.read_text())
    total, own = counted.total(), spent[worker] / sum(spent.values())
    for name, count in counted.most_common():
        yield Stage(case=case.name, name=name, share=own * count / total)
    yield Stage(case=case.name, name=THREADS, share=1 - own)


async def _under_load(target: Target, case: Case, child: subprocess.Popen[str]) -> None:
    async with Load(target.url, [case.request.to_bytes(target.url, target.api_key)], CONNECTIONS) as load:
        while child.poll() is None:
            await load.run(seconds=0.2)
            await asyncio.sleep(0)


def by_stage(stacks: str) -> Counter[str]:
    """Samples of the main thread by stage.

    A line is a stack, from the thread's name by way of the outermost frame to the innermost, and how often it was seen.
    The profiler does not stop what it looks at, so now and then a name is whatever memory there was: no sample.
    """
    counted: Counter[str] = Counter()
    for line in stacks.split("\n"):
        stack, _, count = line.rpartition(" ")
        if _MAIN not in stack.partition(";")[0] or not (count.isascii() and count.isdecimal()):
            continue
        counted[stage_of(_FRAME.findall(stack))] += int(count)
    return counted


def stage_of(files: Sequence[str], otherwise: str = SERVER) -> str:
    """The stage of the innermost frame that belongs to one."""
    for file in reversed(files):
        for pattern, name in _STAGES:
            if re.search(pattern, file):
                return name
    return otherwise
