"""Failed authentications for the audit log: counted per address block and reason, never one row each.

They have no tenant, so they never enter a usage stream: a flood of them cannot fill what settlements need. Every ten
seconds the counts become entries of a stream of their own, which Redis cuts to its newest ones.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import batched

from dataplane.errors import CannotCheckError
from dataplane.quota.failures import address_block
from dataplane.quota.link import Link
from shared import keyspace, logs, records
from shared.clock import Clock
from shared.records import AnonymousFailures

EVERY_S = 10.0
MAX_ENTRIES = 10_000
# Blocks and reasons that are told apart within ten seconds; further blocks count as one.
MAX_KINDS = 4096
OTHER_BLOCK = "other"
_PER_WRITE = 200

log = logs.get(__name__)


class AnonymousCounts:
    """Implements ``ports.FailureLog``; ``run`` hands the counts on."""

    def __init__(self, *, link: Link, clock: Clock) -> None:
        self._link = link
        self._clock = clock
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, client_ip: str, reason: str) -> None:
        """Counts one failure."""
        kind = (address_block(client_ip), reason)
        if kind not in self._counts and len(self._counts) >= MAX_KINDS:
            kind = (OTHER_BLOCK, reason)
        self._counts[kind] += 1

    async def run(self) -> None:
        """Hands the counts on every ten seconds, until it is cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            await self.flush()

    async def flush(self) -> None:
        """Hands on what was counted; while Redis is away the counts just grow."""
        if not self._link.is_trusted:
            return
        counts, self._counts = self._counts, Counter()
        at_ms = int(self._clock.unix_s() * 1000)
        for some in batched(counts.items(), _PER_WRITE):
            entries = (
                AnonymousFailures(at_ms=at_ms, block=block, reason=reason, occurrences=occurrences)
                for (block, reason), occurrences in some
            )
            head = ("XADD", keyspace.ANONYMOUS, "MAXLEN", "~", str(MAX_ENTRIES), "*", "e")
            try:
                await self._link.read(*((*head, records.encode(entry).decode()) for entry in entries))
            except CannotCheckError as fault:
                # Some may have arrived: counting them twice is better than not at all.
                log.warning("anonymous_counts_kept", reason=fault.detail)
                self._counts.update(dict(some))

    def __repr__(self) -> str:
        return f"AnonymousCounts({len(self._counts)} kinds)"
