"""What is known of a deployment where the doctor runs: its environment, and what settings can be read from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import msgspec

from controlplane import config
from controlplane.core.backends import BackendsError, StaticBackend
from controlplane.doctor.findings import Finding, failed, names, ok, skipped
from shared import sealing
from shared.config import ConfigurationError
from shared.redaction import Secret
from shared.sealing import Sealer

_MISSING = ": is required"


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a control plane as far as they can be read; each check takes what it needs.

    ``known`` holds values by the fields of ``controlplane.config.Settings``, defaults included.
    """

    environ: Mapping[str, str]
    known: Mapping[str, Any]
    faults: tuple[str, ...] = ()
    # The file that completed the environment, None when there was none.
    env_file: Path | None = None

    @classmethod
    def read(cls, environ: Mapping[str, str], *, env_file: Path | None = None, is_known: bool = False) -> Self:
        """The deployment that an environment describes.

        Raises ``ConfigurationError`` when it names neither Redis nor Postgres, unless the deployment ``is_known`` by
        something else: then it describes none.
        """
        known, faults = config.partial(environ)
        if is_known or not faults or known.get("redis_url") or known.get("database_url"):
            return cls(environ=environ, known=known, faults=faults, env_file=env_file)
        raise ConfigurationError([fault for fault in faults if fault.startswith(("REDIS_URL", "DATABASE_URL"))])

    @property
    def redis_url(self) -> Secret | None:
        """Address of Redis with its credential."""
        return self.known.get("redis_url")

    def with_fault(self, fault: str) -> Deployment:
        """The same with one more fault of the settings."""
        return msgspec.structs.replace(self, faults=(*self.faults, fault))

    @property
    def database_url(self) -> Secret | None:
        """Address of Postgres with its credential."""
        return self.known.get("database_url")

    @property
    def sealer(self) -> Sealer | None:
        """What opens credentials of backends; None without a sealing key."""
        key: Secret | None = self.known.get("sealing_key")
        return None if key is None else Sealer(sealing.decode_key(key.reveal()))

    @property
    def static_backends(self) -> tuple[StaticBackend, ...]:
        """Backends of the environment; none when they cannot be read, the default one only for a control plane."""
        known = self.known
        if self.database_url is None and not known.get("ollama_backends") and not known.get("ollama_base_url"):
            return ()
        if "ollama_backends" not in known or "ollama_base_url" not in known:
            return ()
        try:
            return config.static_backends(
                known["ollama_backends"], known["ollama_base_url"], known.get("ollama_auth_token")
            )
        except BackendsError:
            return ()


def settings(deployment: Deployment) -> list[Finding]:
    """Whether the settings follow their rules, every fault as a finding of its own."""
    missing = [fault.removesuffix(_MISSING) for fault in deployment.faults if fault.endswith(_MISSING)]
    wrong = [fault for fault in deployment.faults if not fault.endswith(_MISSING)]
    found = [failed("settings", fault, "correct it; .env.example has every setting with its rule") for fault in wrong]
    if missing:
        advice = "give doctor the environment of a control plane (or --env-file) to have everything looked at"
        found.append(skipped("settings", f"not set here: {names(missing)}", advice))
    return found or [ok("settings", "all of a control plane's can be read")]
