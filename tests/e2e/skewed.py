"""Data planes whose wall clock is wrong, beside those of a running stack and with the same environment.

The clock is moved by a ``sitecustomize`` on the path of the process and its workers: every ``time.time`` in them is
off, and nothing else knows.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from deploy.local.ports import free_port
from tests.e2e.harness import START_TIMEOUT_S, Gateway, eventually, is_ready

_SITE = """
import time
real_s, real_ns = time.time, time.time_ns
time.time = lambda: real_s() + {offset_s}
time.time_ns = lambda: real_ns() + {offset_s} * 1_000_000_000
"""


@contextlib.contextmanager
def skewed_data_planes(gateway: Gateway, folder: Path, offsets_s: Sequence[int]) -> Iterator[list[str]]:
    """One more data plane for each offset; gives their URLs once they are ready."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(_skewed(gateway, folder / str(offset_s), offset_s)) for offset_s in offsets_s]


@contextlib.contextmanager
def _skewed(gateway: Gateway, folder: Path, offset_s: int) -> Iterator[str]:
    folder.mkdir(parents=True)
    (folder / "sitecustomize.py").write_text(_SITE.format(offset_s=offset_s))
    port = free_port()
    environment = gateway.dataplane_environment() | {
        "PYTHONPATH": str(folder),
        "GATEWAY_BIND_PORT": str(port),
        "GATEWAY_METRICS_BIND": f"127.0.0.1:{free_port()}",
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "dataplane"], env=environment, stdout=log, stderr=log, cwd="/"
        )
    url = f"http://127.0.0.1:{port}"
    try:
        eventually(lambda: is_ready(url), timeout_s=START_TIMEOUT_S, what=f"a data plane {offset_s} s off")
        yield url
    finally:
        process.terminate()
        process.wait(timeout=60)
