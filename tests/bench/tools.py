"""Programs that a comparison can do without: LiteLLM's proxy and py-spy, installed on demand, outside the checkout.

They never become dependencies: each has a virtual environment of its own in the cache folder of the user
(``$XDG_CACHE_HOME/neuronetz-gateway/bench``), made by uv once and used from then on.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

_CHECKOUT = Path(__file__).parents[2]
_INSTALL_TIMEOUT_S = 900


class MissingToolError(Exception):
    """A program that is not here and could not be installed."""


def cache() -> Path:
    """Where the environments are."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "neuronetz-gateway" / "bench"


def installed(program: str, requirement: str) -> Path:
    """The program, from an environment that holds ``requirement``, made if need be. Raises ``MissingToolError``."""
    folder = cache() / program
    executable = folder / "bin" / program
    if executable.exists():
        return executable
    uv = shutil.which(os.environ.get("UV", "uv")) or shutil.which("uv", path=str(_CHECKOUT / ".tools" / "bin"))
    if uv is None:
        raise MissingToolError(f"{program} needs uv to be installed")
    base = getattr(sys, "_base_executable", sys.executable)
    try:
        _run(uv, "venv", "--quiet", "--clear", "--python", base, str(folder))
        _run(uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), requirement)
    except (subprocess.SubprocessError, OSError) as fault:
        raise MissingToolError(f"{program} could not be installed: {fault}") from fault
    return executable


def version(program: Path, distribution: str) -> str:
    """The version of what was installed."""
    code = f"import importlib.metadata as m; print(m.version({distribution!r}))"
    python = program.with_name("python")
    return subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=_INSTALL_TIMEOUT_S)
