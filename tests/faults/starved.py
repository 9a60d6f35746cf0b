"""One more data plane of a gateway, as a process of the test's own: without what others have, or of another release."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

from deploy.local.ports import free_port
from tests.e2e.harness import START_TIMEOUT_S, Gateway, eventually, is_ready

_STOP_TIMEOUT_S = 60.0
# Limits itself and becomes what it is for. Between fork and exec of a process that has threads and gRPC, Python code
# (``preexec_fn``) may hang or crash.
_LIMITED = """
import json, os, resource, sys
for which, most in json.loads(sys.argv[1]):
    resource.setrlimit(which, (most, most))
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


class DataPlane:
    """A data plane beside those of the fleet; ``worker`` is the process that serves."""

    def __init__(self, process: subprocess.Popen[bytes], url: str) -> None:
        self.process = process
        self.url = url
        self.worker = 0

    def is_ready(self) -> bool:
        """Whether it says so within two seconds."""
        return is_ready(self.url, timeout_s=2)

    def is_same(self) -> bool:
        """Whether the process that served first still does."""
        return psutil.pid_exists(self.worker) and self.process.poll() is None


@contextlib.contextmanager
def data_plane(
    gateway: Gateway,
    *,
    stdout: int,
    limits: dict[int, int] | None = None,
    settings: dict[str, str] | None = None,
    code: Path | None = None,
) -> Iterator[DataPlane]:
    """Starts it with ``stdout`` as its log, resource ``limits`` (``RLIMIT_*``) and other ``settings``, and ends it.

    ``code`` is another checkout, whose packages it is made of.
    """
    port = free_port()
    environment = {
        **gateway.dataplane_environment(),
        "GATEWAY_BIND_PORT": str(port),
        "GATEWAY_METRICS_BIND": f"127.0.0.1:{free_port()}",
        "GATEWAY_ADVERTISED_ADDRESS": f"127.0.0.1:{port}",
        "GATEWAY_DRAIN_TIMEOUT_S": "2",
        **(settings or {}),
    }
    environment.pop("GATEWAY_RUNTIME_DIR", None)
    if code is not None:
        environment["PYTHONPATH"] = os.pathsep.join([str(code), str(code / "proto")])
    process = subprocess.Popen(
        [sys.executable, "-c", _LIMITED, json.dumps(list((limits or {}).items())), "-m", "dataplane"],
        env=environment,
        stdout=stdout,
        stderr=subprocess.DEVNULL,
    )
    plane = DataPlane(process, f"http://127.0.0.1:{port}")
    try:
        eventually(plane.is_ready, timeout_s=START_TIMEOUT_S, what="one more data plane")
        below = psutil.Process(process.pid).children(recursive=True)
        plane.worker = next(child.pid for child in below if "tracker" not in " ".join(child.cmdline()))
        yield plane
    finally:
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
            process.wait()
            raise
