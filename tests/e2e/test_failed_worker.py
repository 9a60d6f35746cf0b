"""A worker one of whose tasks has failed ends, so that whoever started it can start another."""

from __future__ import annotations

import subprocess
import sys

from deploy.local.ports import free_port
from tests.e2e.harness import eventually, is_ready

# A fault of our own in a task that nobody waits for, as soon as the test says so.
_SITE = """
import asyncio, pathlib
from dataplane.quota import refusals

async def run(self):
    while not pathlib.Path({sign!r}).exists():
        await asyncio.sleep(0.05)
    raise RuntimeError("a fault of our own")

refusals.CollapsedRefusals.run = run
"""


def test_a_worker_with_a_failed_task_ends_instead_of_refusing_everything_for_good(gateway, tmp_path):
    sign = tmp_path / "fail"
    (tmp_path / "sitecustomize.py").write_text(_SITE.format(sign=str(sign)))
    port = free_port()
    environment = gateway.dataplane_environment() | {
        "PYTHONPATH": str(tmp_path),
        "GATEWAY_BIND_PORT": str(port),
        "GATEWAY_METRICS_BIND": f"127.0.0.1:{free_port()}",
    }
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "dataplane"], env=environment, stdout=file, stderr=file, cwd="/"
        )
    try:
        eventually(lambda: is_ready(f"http://127.0.0.1:{port}"), timeout_s=60, what="a data plane")
        sign.touch()
        assert process.wait(timeout=60) != 0
    finally:
        process.kill()
        process.wait()
    assert '"event":"worker_failed"' in log.read_text()
