"""What the person who starts the stack decides, and where the defaults come from."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import deploy
from deploy.local.redis import DEFAULT_MAXMEMORY

DEFAULT_OLLAMA_URL = "http://127.0.0.1:11434"


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """How many replicas, on which ports, in front of what.

    `backends` are pairs of name and URL in the order of their priority; with `mock` there is one mock Ollama instead.
    `settings` are environment variables for both planes and win over everything that the stack sets itself.
    """

    state: Path
    backends: tuple[tuple[str, str], ...] = ()
    mock: bool = False
    replicas: int = 1
    control_replicas: int = 1
    port: int | None = None
    admin_port: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    refresh_s: int = 60
    redis_maxmemory: str = DEFAULT_MAXMEMORY
    redis_policy: str = "noeviction"
    ready_timeout_s: float = 60.0


def default_state(name: str) -> Path:
    """The state folder of `up`: below XDG_STATE_HOME, or `~/.local/state`."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "neuronetz-gateway" / name


def demo_state() -> Path:
    """The state folder of the demo: `.state/demo` of the checkout, or like that of `up` where there is no checkout."""
    checkout = Path(next(iter(deploy.__path__))).parent
    return checkout / ".state" / "demo" if (checkout / "pyproject.toml").is_file() else default_state("demo")


def ollama_from_environment() -> dict[str, str]:
    """The settings of the single backend that the environment names: its address and, where given, its token."""
    found = {"OLLAMA_BASE_URL": os.environ.get("OLLAMA_BASE_URL") or DEFAULT_OLLAMA_URL}
    token = os.environ.get("OLLAMA_AUTH_TOKEN")
    return found | ({"OLLAMA_AUTH_TOKEN": token} if token else {})
