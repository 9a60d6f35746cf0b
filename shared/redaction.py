"""Secrets that do not show themselves.

A ``Secret`` prints as ``***`` everywhere: in logs, in tracebacks that show locals, in the ``repr`` of a settings
struct. Its text leaves only through ``reveal()``, which is easy to find in a review.
"""

from __future__ import annotations

import re
from typing import final

REDACTED = "***"

_KEY_LIKE = re.compile(r"nz_[0-9A-Za-z]{9}[0-9A-Za-z]+")
_URL_PASSWORD = re.compile(r"(?P<head>[A-Za-z][A-Za-z0-9+.-]*://[^:/@\s]*:)[^@/\s]+@")
_BEARER = re.compile(r"(?i)\b(bearer)\s+\S+")


@final
class Secret:
    """A text that must never be shown."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself, for the one place that needs it."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return f"Secret({REDACTED})"

    def __str__(self) -> str:
        return REDACTED


def redact(text: str) -> str:
    """The text with API keys (beyond their prefix), bearer tokens and passwords in URLs replaced by ``***``."""
    text = _KEY_LIKE.sub(lambda match: match[0][:12] + REDACTED, text)
    text = _URL_PASSWORD.sub(lambda match: match["head"] + REDACTED + "@", text)
    return _BEARER.sub(lambda match: f"{match[1]} {REDACTED}", text)
