"""Secrets: long enough, random as far as one can see, and in files that others cannot read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from controlplane.config import Settings
from controlplane.doctor.deployment import Deployment
from controlplane.doctor.files import is_for_everybody
from controlplane.doctor.findings import Finding, failed, first_of, names, ok, skipped, warning
from shared import sealing
from shared.config import declared
from shared.redaction import Secret

# 32 random bytes as text have 43 characters or 64; both planes accept less.
GOOD_LENGTH = 32
# Fewer distinct characters in as many random ones do not happen.
FEW_DISTINCT = 8
_TEXTS = ("key_pepper", "admin_token", "dataplane_token")
_MAKE = "make another with deploy/secrets.sh or: openssl rand -base64 48"


async def strength(deployment: Deployment) -> list[Finding]:
    """Each secret by its length and variety; never by its text."""
    found = [
        _judged(f"secrets.{field.removeprefix('key_').replace('_', '-')}", value)
        for field in _TEXTS
        if (value := deployment.known.get(field)) is not None
    ]
    key: Secret | None = deployment.known.get("sealing_key")
    return [*found, *([] if key is None else [_sealing_key(key)])]


async def files(deployment: Deployment) -> list[Finding]:
    """Files named by ``NAME_FILE`` and ``--env-file`` that any user of the machine may read."""
    name, looked_at, opened, unreadable = "secrets.files", 0, [], []
    for path in _secret_files(deployment):
        looked_at += 1
        try:
            if is_for_everybody(path):
                opened.append(str(path))
        except OSError:
            unreadable.append(str(path))
    if not looked_at:
        return [skipped(name, "no secret is read from a file here")]
    return [
        first_of(
            failed(name, f"everybody can read {names(opened)}", "chmod o-rwx the files or their folder")
            if opened
            else None,
            failed(name, f"cannot be read: {names(unreadable)}", "correct the path or the rights")
            if unreadable
            else None,
            ok(name, f"{looked_at} that not everybody can read"),
        )
    ]


def _judged(name: str, secret: Secret) -> Finding:
    text = secret.reveal()
    if len(set(text)) < FEW_DISTINCT:
        return failed(name, "of very few different characters", _MAKE)
    if len(text) < GOOD_LENGTH:
        return warning(name, f"{len(text)} characters", f"{_MAKE}; {GOOD_LENGTH} characters are the least")
    return ok(name, f"{len(text)} characters")


def _sealing_key(secret: Secret) -> Finding:
    name, key = "secrets.sealing-key", sealing.decode_key(secret.reveal())
    if len(set(key)) < FEW_DISTINCT:
        return failed(
            name, "of very few different bytes", "make another: openssl rand -base64 32, and add backends anew"
        )
    return ok(name, f"{len(key)} bytes")


def _secret_files(deployment: Deployment) -> Iterator[Path]:
    if deployment.env_file is not None:
        yield deployment.env_file
    for item in declared(Settings):
        path = deployment.environ.get(f"{item.setting.name}_FILE")
        if path:
            yield Path(path)
