"""Looks through everything that the suite's processes left behind for what must stand nowhere.

``python -m tests.canaries FOLDER`` reads every file below the folder: logs, captured replies, Redis's files, Postgres's
tables and write-ahead logs. It ends with 1 when it finds an API key, the prompt that tests send for tenants without a
prompt log, or in the files of an embedded stack one of its secrets, and says what and where, never the secret.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

# What tests ask models when it does not matter what they are asked.
PROMPT = "walnuts ripen behind the attic window"

_PROMPT = PROMPT.encode()
_API_KEY = re.compile(rb"nz_[0-9A-Za-z]{60}")
# A secret is random: of its characters about thirty differ. What tests make up repeats itself.
_LEAST_DIFFERENT = 15
_SECRETS = "secrets.json"
# Where secrets belong: what the stack keeps for its next start, and what Redis is started with.
_KEPT = (_SECRETS, "redis.conf")
# The databases that every cluster begins with, by their object ids; nobody connects to them.
_TEMPLATES = re.compile(r"/postgres/base/[145]/")


def leaks(folder: Path) -> Iterator[str]:
    """Every leak below a folder, as one line each."""
    stacks = {path.parent: _secrets(path) for path in folder.rglob(_SECRETS)}
    for path in files(folder):
        content = path.read_bytes()
        keys = {match[0] for match in _API_KEY.finditer(content) if len({*match[0][12:]}) >= _LEAST_DIFFERENT}
        for key in sorted(keys):
            yield f"API key {key[:12].decode()}… in {path.relative_to(folder)}"
        if _PROMPT in content:
            yield f"the prompt in {path.relative_to(folder)}"
        stack = next((parent for parent in path.parents if parent in stacks), None)
        for name, secret in stacks[stack].items() if stack is not None else ():
            if secret in content:
                yield f"secret {name} in {path.relative_to(folder)}"


def files(folder: Path) -> Iterator[Path]:
    """What is looked through."""
    for path in sorted(folder.rglob("*")):
        is_kept = path.name in _KEPT or _TEMPLATES.search(str(path)) is not None
        if not is_kept and path.is_file() and not path.is_symlink():
            yield path


def _secrets(path: Path) -> Mapping[str, bytes]:
    stored: dict[str, str] = json.loads(path.read_text())
    return {name: secret.encode() for name, secret in stored.items()}


def main() -> int:
    """The command; 0 when nothing was found, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m tests.canaries", description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    found = list(leaks(folder))
    for leak in found:
        print(leak)  # noqa: T201 - this is a command
    print(f"{len(found)} secrets in {sum(1 for _ in files(folder))} files")  # noqa: T201
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
