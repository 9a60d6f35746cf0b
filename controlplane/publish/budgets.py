"""The counters that admission decides budgets on: read as they are, and corrected together with a usage event."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path

import msgspec
from redis.asyncio import Redis

from controlplane.core.corrections import Correction
from controlplane.core.counters import ttl_s, warm_periods
from controlplane.core.usage_query import Counter
from controlplane.errors import RedisUnavailableError
from controlplane.publish.connection import translated
from controlplane.publish.fence import Fences
from shared import keyspace, records
from shared.keyspace import Period, Scope, Shard

# Longer than any operator will repeat a correction; what is older, the ledger knows.
TOMBSTONE_TTL_MS = 7 * 86_400_000
_READ_BATCH = 500


class Decision(StrEnum):
    """What became of a correction; the words are those of the script."""

    APPLIED = "applied"
    AGAIN = "again"
    OTHER = "other"
    NEGATIVE = "negative"
    OVERFLOW = "overflow"


class Adjusted(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a correction, and the counters after it; those that Redis no longer keeps are not there."""

    decision: Decision
    counters: Mapping[tuple[Scope, Period], Counter]


class BudgetCounters:
    """Reads and corrects. Every method raises ``RedisUnavailableError``."""

    def __init__(self, redis: Redis, *, fences: Fences, timeout_s: float) -> None:
        self._redis = redis
        self._fences = fences
        self._timeout_s = timeout_s
        self._adjust = redis.register_script((Path(__file__).parent / "adjust_budget.lua").read_text())

    async def now(self) -> dt.datetime:
        """The time of the server: what periods are decided by."""
        with translated():
            async with asyncio.timeout(self._timeout_s):
                seconds, microseconds = await self._redis.time()
        return dt.datetime.fromtimestamp(seconds, dt.UTC).replace(microsecond=microseconds)

    async def read(
        self, shard: Shard, wanted: Iterable[tuple[Scope, Period]]
    ) -> dict[tuple[Scope, Period], Counter] | None:
        """The counters of scopes in periods, 0 where there is none; None while the shard is being rebuilt."""
        server = await self._fences.server()
        names = list(wanted)
        found: dict[tuple[Scope, Period], Counter] = {}
        for start in range(0, len(names), _READ_BATCH):
            batch = names[start : start + _READ_BATCH]
            with translated():
                async with asyncio.timeout(self._timeout_s), self._redis.pipeline(transaction=False) as pipe:
                    for scope, period in batch:
                        pipe.hmget(keyspace.budget(shard, scope, period), ["used", "reserved"])
                    # Last, so that what was read before it belongs to the state that it vouches for.
                    pipe.get(keyspace.fence(shard))
                    *values, fence = await pipe.execute()
            if fence is None or not fence.startswith(server.incarnation.encode()):
                return None
            for name, (used, reserved) in zip(batch, values, strict=True):
                found[name] = Counter(used=int(used or 0), reserved=int(reserved or 0))
        return found

    async def adjust(
        self, shard: Shard, correction: Correction, scopes: Sequence[Scope], at: dt.datetime, *, check_only: bool
    ) -> Adjusted:
        """Applies a correction to the counters of all its periods in these scopes and appends its usage event.

        ``at`` is the time of the server; with ``check_only`` nothing is changed. When the answer is lost, nobody knows
        whether it was applied: sending the same correction again is safe.
        """
        counters = [(scope, period) for scope in scopes for period in correction.periods.names]
        server = await self._fences.server()
        keys = [keyspace.fence(shard), keyspace.usage(shard), keyspace.lease(shard, correction.event_id)]
        arguments: list[str | bytes | int] = [
            server.incarnation,
            correction.fingerprint,
            TOMBSTONE_TTL_MS,
            records.encode(correction.event(at)),
            correction.tokens,
            int(check_only),
            *(_ttl_ms(period, at) for _, period in counters),
        ]
        with translated():
            async with asyncio.timeout(self._timeout_s):
                decision, *values = await self._adjust(
                    keys=[*keys, *(keyspace.budget(shard, scope, period) for scope, period in counters)],
                    args=arguments,
                )
        if decision == b"unfenced":
            raise RedisUnavailableError("the shard is being rebuilt")
        numbers = zip(counters, values[::2], values[1::2], strict=True) if values else ()
        return Adjusted(
            decision=Decision(decision.decode()),
            counters={
                name: Counter(used=int(used), reserved=int(reserved)) for name, used, reserved in numbers if used
            },
        )

    def __repr__(self) -> str:
        return f"BudgetCounters(timeout_s={self._timeout_s})"


def _ttl_ms(period: Period, now: dt.datetime) -> int:
    """Time to live of a counter that has to be made, 0 for ever, -1 for one that a rebuild would not make either."""
    return ttl_s(period) * 1000 if period in warm_periods(now) else -1
