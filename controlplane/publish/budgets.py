"""The counters that admission decides budgets on: read as they are, and corrected together with a usage event."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from itertools import batched

import msgspec
from redis.asyncio import Redis

from controlplane.core.corrections import Correction
from controlplane.core.counters import TOTAL, warm_periods
from controlplane.errors import RedisUnavailableError
from controlplane.publish.connection import translated
from controlplane.publish.fence import Fences
from controlplane.publish.scripts import source
from shared import keyspace, layout, records
from shared.keyspace import Period, Scope, Shard
from shared.layout import Counter, LayoutError

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
        self._adjust = redis.register_script(source("adjust_budget", "counters"))

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
        wanted = list(wanted)
        scopes = list(dict.fromkeys(scope for scope, _ in wanted))
        found: dict[Scope, Mapping[Period, Counter]] = {}
        for batch in batched(scopes, _READ_BATCH):
            with translated():
                async with asyncio.timeout(self._timeout_s), self._redis.pipeline(transaction=False) as pipe:
                    pipe.mget(keyspace.counters(shard, scope) for scope in batch)
                    # Last, so that what was read before it belongs to the state that it vouches for.
                    pipe.get(keyspace.fence(shard))
                    values, fence = await pipe.execute()
            if fence is None or not fence.startswith(server.incarnation.encode()):
                return None
            found |= {scope: _counters_of(raw) for scope, raw in zip(batch, values, strict=True)}
        return {(scope, period): found[scope].get(period, Counter()) for scope, period in wanted}

    async def adjust(
        self, shard: Shard, correction: Correction, scopes: Sequence[Scope], at: dt.datetime, *, check_only: bool
    ) -> Adjusted:
        """Applies a correction to the counters of all its periods in these scopes and appends its usage event.

        ``at`` is the time of the server; with ``check_only`` nothing is changed. When the answer is lost, nobody knows
        whether it was applied: sending the same correction again is safe.
        """
        periods, warm = correction.periods.names, warm_periods(at)
        counters = [(scope, period) for scope in scopes for period in periods]
        server = await self._fences.server()
        keys = [keyspace.fence(shard), keyspace.usage(shard), keyspace.lease(shard, correction.event_id)]
        arguments: list[str | bytes | int] = [
            server.incarnation,
            correction.fingerprint,
            TOMBSTONE_TTL_MS,
            records.encode(correction.event(at)),
            correction.tokens,
            int(check_only),
            *(part for period in periods for part in (_id_of(period), int(period in warm))),
        ]
        with translated():
            async with asyncio.timeout(self._timeout_s):
                decision, *values = await self._adjust(
                    keys=[*keys, *(keyspace.counters(shard, scope) for scope in scopes)], args=arguments
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


def _id_of(period: Period) -> str:
    """What the script calls a period."""
    return "0" if period == TOTAL else period


def _counters_of(raw: bytes | None) -> Mapping[Period, Counter]:
    try:
        return layout.read_counters(raw)
    except LayoutError as fault:
        raise RedisUnavailableError("counters of another layout") from fault
