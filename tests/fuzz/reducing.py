"""Making a failing body small, so that one sees what is wrong with it."""

from __future__ import annotations

from tests.fuzz import judging
from tests.fuzz.sending import Sender

MAX_TRIALS = 3000
# Of bodies that take long.
MAX_SLOW_TRIALS = 30


async def reduced(path: str, body: bytes, kind: str, sender: Sender) -> bytes:
    """The body without the pieces that the finding does not need; still a finding of the same kind."""
    trials, most = 0, MAX_SLOW_TRIALS if kind == "slow" else MAX_TRIALS
    piece = max(1, len(body) // 2)
    while piece and trials < most:
        start, removed = 0, False
        while start < len(body) and trials < most:
            shorter = body[:start] + body[start + piece :]
            trials += 1
            if await _fails(path, shorter, kind, sender):
                body, removed = shorter, True
            else:
                start += piece
        if not removed or piece > 1:
            piece //= 2
    return body


async def _fails(path: str, body: bytes, kind: str, sender: Sender) -> bool:
    try:
        await judging.judge(path, body, sender)
    except judging.Finding as finding:
        return finding.kind == kind
    return False
