"""The tools that read deployment files, and what our programs read of their environment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from controlplane.cli.settings import Settings as CommandLineSettings
from controlplane.config import Settings as ControlPlaneSettings
from dataplane.config import Settings as DataPlaneSettings
from shared.config import declared


def run(tool: str, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a tool of the environment that the suite runs in; it sees no variables but these."""
    program = Path(sys.executable).with_name(tool)
    return subprocess.run(
        [str(program), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", **environment},
    )


def _names(*settings: type) -> frozenset[str]:
    names = {item.setting.name for each in settings for item in declared(each)}
    return frozenset(names | {f"{name}_FILE" for name in names})


READ_BY = {
    "dataplane": _names(DataPlaneSettings),
    "controlplane": _names(ControlPlaneSettings, CommandLineSettings),
}
SECRETS = frozenset(
    {
        "DATABASE_URL", "REDIS_URL", "GATEWAY_KEY_PEPPER", "GATEWAY_SEALING_KEY", "GATEWAY_ADMIN_TOKEN",
        "GATEWAY_DATAPLANE_TOKEN", "POSTGRES_PASSWORD", "OLLAMA_AUTH_TOKEN", "GATEWAY_OPERATOR_TOKENS",
    }
)  # fmt: skip
