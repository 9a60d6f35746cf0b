"""The bodies that are kept: ``corpus/<endpoint>/<name>.<status>.json``, where the status is the gateway's verdict.

200 means that the body is accepted and something is sent; what exactly, ``judging`` knows. The bytes are what counts:
many are no JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "corpus"


@dataclass(frozen=True, slots=True)
class Kept:
    """A body of the corpus."""

    path: str
    name: str
    status: int
    raw: bytes


def kept() -> list[Kept]:
    """Every body, in an order that does not depend on the machine."""
    return [
        Kept(_path(file.parent.name), *_name(file.name), file.read_bytes()) for file in sorted(FOLDER.glob("*/*.json"))
    ]


def _path(folder: str) -> str:
    return "/" + folder.replace("-", "/")


def _name(file: str) -> tuple[str, int]:
    name, status, _ = file.rsplit(".", 2)
    return name, int(status)
