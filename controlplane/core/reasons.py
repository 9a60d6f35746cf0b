"""Why an operator did something, in their words: the one rule for it."""

from __future__ import annotations

from controlplane.errors import InvalidRequestError

MAX_REASON_LENGTH = 500


def check(reason: str) -> None:
    """Nothing, or ``InvalidRequestError`` with the rule; no reason at all is allowed."""
    if len(reason) > MAX_REASON_LENGTH or not reason.isprintable():
        raise InvalidRequestError(f"reason must have at most {MAX_REASON_LENGTH} printable characters")
