"""Runs `up` or `demo` with stand-ins for the planes, and looks at what they started."""

import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import psutil

PLANES = Path(__file__).parent / "planes"


class Foreground:
    """A running `up --json` or `demo --json`."""

    def __init__(self, command: str, state: Path, *arguments: str, fault: str = "") -> None:
        settings = ("--set", f"PYTHONPATH={PLANES}", "--set", f"FAKE_FAULT={fault}")
        line = (sys.executable, "-m", "deploy.local", command, "--state", str(state), *settings, *arguments)
        self.process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def ready(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        return dict(json.loads(line))

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str, str]:
        self.process.send_signal(number)
        output, errors = self.process.communicate(timeout=30)
        return self.process.returncode, output, errors


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def answer(url: str) -> dict[str, Any]:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{url}/readyz", timeout=2) as reply:
        return dict(json.load(reply))
