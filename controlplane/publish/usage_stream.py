"""The usage streams as the drain consumes them: one consumer group, any number of consumers.

An entry that was read belongs to its consumer until it is acknowledged; what a dead consumer held is claimed by another
once it has been idle. Acknowledging also deletes: the stream holds exactly what the ledger does not have yet.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import msgspec
from redis.asyncio import Redis

from controlplane.errors import RedisUnavailableError
from controlplane.publish.connection import translated
from controlplane.publish.consumer_group import GroupExistsError, NoGroupError, group_translated, text_of
from shared import keyspace
from shared.keyspace import SHARDS, USAGE_GROUP, Shard

# At one call: admissions wait for it, and each entry takes the server some 6 µs.
ACKNOWLEDGED_AT_ONCE = 32
_HERE = Path(__file__).parent
_FIELD = b"e"
# Parts of a stream that the server weighs to estimate the whole.
_SAMPLES = 20


class StreamEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a usage stream; ``raw`` is None when it has no event."""

    shard: Shard
    entry_id: str
    raw: bytes | None


class UsageStreams:
    """Reads, claims and acknowledges for one consumer.

    ``redis`` comes from ``publish.connection``: it never tries twice and allows a blocking read its time. Every method
    raises ``RedisUnavailableError``.
    """

    def __init__(self, redis: Redis, *, consumer: str, timeout_s: float = 2.0) -> None:
        self._redis = redis
        # The library does not type the command that takes any command.
        self._execute: Any = redis.execute_command
        self._consumer = consumer
        self._timeout_s = timeout_s
        self._acknowledge = redis.register_script((_HERE / "acknowledge_usage.lua").read_text())
        self._forget = redis.register_script((_HERE / "forget_consumers.lua").read_text())

    async def read(self, shards: Sequence[Shard], *, count: int, block_s: float) -> list[StreamEntry]:
        """New entries, at most ``count`` of each shard; waits up to ``block_s`` for the first.

        Groups that are not there (a new deployment, a Redis that lost its data) are made.
        """
        try:
            return await self._read(shards, count=count, block_s=block_s)
        except NoGroupError:
            await self._make_groups(shards)
        try:
            return await self._read(shards, count=count, block_s=block_s)
        except NoGroupError as fault:
            raise RedisUnavailableError("Redis lost its data again") from fault

    async def claim(self, shard: Shard, *, idle_s: float, count: int) -> list[StreamEntry]:
        """Entries that another consumer read at least ``idle_s`` ago and never acknowledged, now ours."""
        arguments = [keyspace.usage(shard), USAGE_GROUP, self._consumer, round(idle_s * 1000), "0-0", "COUNT", count]
        try:
            with group_translated():
                async with asyncio.timeout(self._timeout_s):
                    answer = await self._execute("XAUTOCLAIM", *arguments)
        except NoGroupError:
            return []
        return entries_of(shard, answer[1])

    async def acknowledge(self, shard: Shard, entry_ids: Sequence[str]) -> None:
        """Takes recorded entries out of the stream and moves the shard's watermark."""
        keys = [keyspace.usage(shard), keyspace.drained(shard)]
        with contextlib.suppress(NoGroupError), group_translated():
            # Without any entry, too, the watermark moves.
            for first in range(0, max(1, len(entry_ids)), ACKNOWLEDGED_AT_ONCE):
                some = entry_ids[first : first + ACKNOWLEDGED_AT_ONCE]
                async with asyncio.timeout(self._timeout_s):
                    await self._acknowledge(keys=keys, args=[USAGE_GROUP, *some])

    async def forget_consumers(self, shard: Shard, *, idle_s: float) -> None:
        """Removes consumers that have read nothing for ``idle_s`` and hold nothing."""
        with contextlib.suppress(NoGroupError), group_translated():
            async with asyncio.timeout(self._timeout_s):
                await self._forget(keys=[keyspace.usage(shard)], args=[USAGE_GROUP, round(idle_s * 1000)])

    async def _read(self, shards: Sequence[Shard], *, count: int, block_s: float) -> list[StreamEntry]:
        by_key = {keyspace.usage(shard): shard for shard in shards}
        command = ["XREADGROUP", "GROUP", USAGE_GROUP, self._consumer, "COUNT", count, "BLOCK", round(block_s * 1000)]
        with group_translated():
            async with asyncio.timeout(block_s + self._timeout_s):
                answer = await self._execute(*command, "STREAMS", *by_key, *[">"] * len(by_key))
        streams = answer.items() if isinstance(answer, dict) else answer or ()
        return [entry for key, entries in streams for entry in entries_of(by_key[text_of(key)], entries)]

    async def _make_groups(self, shards: Sequence[Shard]) -> None:
        for shard in shards:
            with contextlib.suppress(GroupExistsError), group_translated():
                async with asyncio.timeout(self._timeout_s):
                    await self._redis.xgroup_create(keyspace.usage(shard), USAGE_GROUP, id="0", mkstream=True)

    def __repr__(self) -> str:
        return f"UsageStreams(consumer={self._consumer!r})"


class StreamSize(msgspec.Struct, frozen=True, kw_only=True):
    """How much waits in a stream; ``size_bytes`` is what it takes of the server's memory, extrapolated from a part."""

    events: int
    size_bytes: int


class BacklogState:
    """Measures the streams and says where admission must deny. Every method raises ``RedisUnavailableError``."""

    def __init__(self, redis: Redis, *, timeout_s: float) -> None:
        self._redis = redis
        self._timeout_s = timeout_s

    async def measure(self) -> dict[Shard, StreamSize]:
        """The size of every shard's stream."""
        with translated():
            async with asyncio.timeout(self._timeout_s), self._redis.pipeline(transaction=False) as pipe:
                for shard in SHARDS:
                    pipe.xlen(keyspace.usage(shard))
                    pipe.memory_usage(keyspace.usage(shard), samples=_SAMPLES)
                answers = await pipe.execute()
        return {
            shard: StreamSize(events=events, size_bytes=size_bytes if events and size_bytes else 0)
            for shard, events, size_bytes in zip(SHARDS, answers[::2], answers[1::2], strict=True)
        }

    async def deny(self, shards: Collection[Shard]) -> None:
        """Admission denies in these shards and in no others."""
        names = [keyspace.deny(shard) for shard in SHARDS]
        with translated():
            async with asyncio.timeout(self._timeout_s), self._redis.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.get(name)
                flags = await pipe.execute()
                for shard, name, flag in zip(SHARDS, names, flags, strict=True):
                    if shard in shards and flag is None:
                        await self._redis.set(name, "bytes")
                    elif shard not in shards and flag is not None:
                        await self._redis.delete(name)

    def __repr__(self) -> str:
        return f"BacklogState(timeout_s={self._timeout_s})"


def entries_of(shard: Shard, found: Sequence[Any]) -> list[StreamEntry]:
    """What the server said of entries, as entries."""
    # A claimed entry that was deleted meanwhile comes without fields.
    return [
        StreamEntry(shard=shard, entry_id=text_of(entry_id), raw=(fields or {}).get(_FIELD))
        for entry_id, fields in found
        if entry_id is not None
    ]
