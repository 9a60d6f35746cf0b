"""What was found, and how bad it is. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import msgspec


class Status(StrEnum):
    """How a check ended, from harmless to grave."""

    SKIPPED = "skipped"
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


_GRAVITY = {status: gravity for gravity, status in enumerate(Status)}


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What one check saw. ``seen`` holds no secret and no address with a credential; ``advice`` is empty when ok."""

    name: str
    status: Status
    seen: str
    advice: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All findings of one run, in the order in which they are shown."""

    findings: tuple[Finding, ...]

    @property
    def status(self) -> Status:
        """The worst finding; what was skipped says nothing."""
        return max((Status.OK, *(finding.status for finding in self.findings)), key=_GRAVITY.__getitem__)

    def count(self, status: Status) -> int:
        """How many findings have this status."""
        return sum(finding.status is status for finding in self.findings)


def ok(name: str, seen: str) -> Finding:
    """Nothing to do."""
    return Finding(name=name, status=Status.OK, seen=seen)


def warning(name: str, seen: str, advice: str) -> Finding:
    """It works, but will not for long or not in every case."""
    return Finding(name=name, status=Status.WARNING, seen=seen, advice=advice)


def failed(name: str, seen: str, advice: str) -> Finding:
    """It does not work, or is not safe."""
    return Finding(name=name, status=Status.FAILED, seen=seen, advice=advice)


def skipped(name: str, seen: str, advice: str = "") -> Finding:
    """It could not be looked at from here."""
    return Finding(name=name, status=Status.SKIPPED, seen=seen, advice=advice)


def first_of(*candidates: Finding | None) -> Finding:
    """The first that is one; the last must be."""
    return next(finding for finding in candidates if finding is not None)


def names(items: Iterable[str], *, most: int = 5) -> str:
    """Some names as a phrase, the rest as a number."""
    listed = list(items)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
