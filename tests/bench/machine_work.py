"""How many machine instructions a request is: ``python -m tests.bench.machine_work [--case NAME] [--json FILE]``.

``tests.bench.work`` counts bytecode, and does not see what C does for one instruction of it; time is seen by everybody,
but also who else uses the machine. This counts what the processor executes, below the kernel, for the application of a
worker without its server, 32 requests at a time. Callgrind counts two runs of different length, and what the longer one
has more is divided by the requests that it has more: the same to 1 % wherever the same interpreter runs. It takes two
minutes and valgrind, so it is no part of the suite.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import uvloop

from dataplane import process
from dataplane.api.front import Front
from dataplane.api.watching import Departures
from deploy.local.redis import DATAPLANE, Redis
from tests.bench.application import ask, serving
from tests.bench.cases import CASES, REPLY_NATIVE, Case
from tests.bench.targets import Cores, FastOllama
from tests.e2e.harness import running
from tests.fakes.published_state import PublishedState

SHORT, LONG = 300, 900
AT_A_TIME = 32
# Many times as slow as it is, a request must not look like one whose client has to be watched for leaving.
_NEVER_S = 3600.0


def counted(case: str) -> Counter[str]:
    """Machine instructions of one request by the library that they are in. Raises RuntimeError when a run fails."""
    with tempfile.TemporaryDirectory() as folder:
        files = {requests: Path(folder, str(requests)) for requests in (SHORT, LONG)}
        with contextlib.ExitStack() as stack:
            children = [
                stack.enter_context(
                    subprocess.Popen(
                        ["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={file}",
                         sys.executable, "-m", "tests.bench.machine_work", f"--case={case}", f"--requests={requests}"],
                        stdout=subprocess.DEVNULL,
                    )
                )
                for requests, file in files.items()
            ]  # fmt: skip
        if any(child.returncode for child in children):
            raise RuntimeError("a run under valgrind has failed")
        found = by_library(files[LONG].read_text())
        found.subtract(by_library(files[SHORT].read_text()))
    return Counter({library: count // (LONG - SHORT) for library, count in found.items()})


def by_library(profile: str) -> Counter[str]:
    """Own instructions by library of a profile. Source: valgrind, callgrind format specification, version 1."""
    names: dict[str, str] = {}
    found: Counter[str] = Counter()
    library, is_of_callee = "", False
    for line in profile.splitlines():
        if line.startswith("ob="):
            number, _, name = line.removeprefix("ob=").partition(" ")
            library = names.setdefault(number, Path(name).name)
        elif line.startswith("cob="):
            number, _, name = line.removeprefix("cob=").partition(" ")
            names.setdefault(number, Path(name).name)
        elif line.startswith("calls="):
            is_of_callee = True
        elif line[:1].isdigit() or line[:1] in "+-*":
            # The line behind a call has what the callee and all below it have taken.
            if not is_of_callee and line:
                found[library] += int(line.split()[-1])
            is_of_callee = False
    return found


def run(case: Case, requests: int) -> None:
    """What is counted."""
    cores = Cores.of_this_machine()
    with tempfile.TemporaryDirectory() as folder, Redis(Path(folder)) as redis, running(FastOllama(cores)) as mock:
        state = PublishedState(redis.url)
        uvloop.run(_asked(redis, state, mock.url, case, requests))
        state.close()


async def _asked(redis: Redis, state: PublishedState, upstream_url: str, case: Case, requests: int) -> None:
    Departures.PERIOD_S = _NEVER_S
    async with serving(redis.url_of(DATAPLANE), state, upstream_url) as (application, api_key):
        process.spare_the_collector()
        numbers = iter(range(requests))
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_A_TIME):
                group.create_task(_one_after_the_other(application, case, api_key, numbers))


async def _one_after_the_other(application: Front, case: Case, api_key: str, numbers: Iterator[int]) -> None:
    for _ in numbers:
        await ask(application, case.request, api_key)


def main() -> int:
    """The command; 1 where there is no valgrind."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.machine_work", description=__doc__)
    parser.add_argument("--case", choices=[case.name for case in CASES], default=REPLY_NATIVE, help=REPLY_NATIVE)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to this file")
    parser.add_argument("--requests", type=int, help="only ask so many, to be counted")
    options = parser.parse_args()
    if options.requests:
        run(next(case for case in CASES if case.name == options.case), options.requests)
        return 0
    if shutil.which("valgrind") is None:
        sys.stderr.write("valgrind is not installed\n")
        return 1
    found = counted(options.case)
    if options.json:
        options.json.write_text(json.dumps({"case": options.case, "instructions": dict(found.most_common())}, indent=1))
    total = found.total()
    sys.stdout.write(f"{options.case}: {total} machine instructions a request\n")
    sys.stdout.writelines(
        f"{count:10} {count / total:6.1%} {library}\n" for library, count in found.most_common() if count > 0
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
