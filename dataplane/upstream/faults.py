"""What can be wrong with one attempt, and how much of it is the backend's doing.

A fault is internal to ``dataplane.upstream``: before the first record it becomes an ``AttemptError``, after it a
``StreamBrokenError`` or ``UpstreamTimeoutError``. Its text is ours, or a library's; never the upstream's.
"""

from __future__ import annotations

from enum import Enum


class Blame(Enum):
    """What a failed attempt says about the health of the backend."""

    # It could not be reached, or hung up before the first byte of a reply: always its own failure.
    UNREACHABLE = "unreachable"
    # It answered badly. A single tenant's prompt may have caused that.
    BAD_REPLY = "bad_reply"
    # Our deadline, our client's departure, or a refusal of what we asked: says nothing.
    NONE = "none"


class ReplyError(Exception):
    """The attempt failed. ``timed_out`` tells a deadline from a fault."""

    def __init__(self, detail: str, *, blame: Blame = Blame.BAD_REPLY, timed_out: bool = False) -> None:
        super().__init__(detail)
        self.detail = detail
        self.blame = blame
        self.timed_out = timed_out
