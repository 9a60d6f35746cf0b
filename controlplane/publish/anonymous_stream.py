"""The stream of counted authentication failures, as the control plane consumes it.

It is none of the usage streams: what nobody has authenticated must not be able to fill those. The workers cut it to its
newest entries, so a flood costs its own oldest counts and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import msgspec
from redis.asyncio import Redis

from controlplane.publish.consumer_group import GroupExistsError, NoGroupError, group_translated, text_of
from shared.keyspace import ANONYMOUS, USAGE_GROUP

_FIELD = b"e"


class AnonymousEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry; ``raw`` is None when it has no record."""

    entry_id: str
    raw: bytes | None


class AnonymousStream:
    """Reads, claims and acknowledges for one consumer. Every method raises ``RedisUnavailableError``."""

    def __init__(self, redis: Redis, *, consumer: str, timeout_s: float = 2.0) -> None:
        self._redis = redis
        # The library does not type the command that takes any command.
        self._execute: Any = redis.execute_command
        self._consumer = consumer
        self._timeout_s = timeout_s

    async def read(self, *, count: int) -> list[AnonymousEntry]:
        """New entries, at most ``count``; makes the group where there is none."""
        command = ["XREADGROUP", "GROUP", USAGE_GROUP, self._consumer, "COUNT", count, "STREAMS", ANONYMOUS, ">"]
        try:
            answer = await self._run(*command)
        except NoGroupError:
            with contextlib.suppress(GroupExistsError):
                await self._run("XGROUP", "CREATE", ANONYMOUS, USAGE_GROUP, "0", "MKSTREAM")
            return []
        streams = answer.items() if isinstance(answer, dict) else answer or ()
        return [entry for _, entries in streams for entry in _entries(entries)]

    async def claim(self, *, idle_s: float, count: int) -> list[AnonymousEntry]:
        """Entries that another consumer read at least ``idle_s`` ago and never acknowledged, now ours."""
        arguments = [ANONYMOUS, USAGE_GROUP, self._consumer, round(idle_s * 1000), "0-0", "COUNT", count]
        try:
            answer = await self._run("XAUTOCLAIM", *arguments)
        except NoGroupError:
            return []
        return _entries(answer[1])

    async def acknowledge(self, entry_ids: Sequence[str]) -> None:
        """Takes recorded entries out of the stream."""
        with contextlib.suppress(NoGroupError):
            await self._run("XACK", ANONYMOUS, USAGE_GROUP, *entry_ids)
            await self._run("XDEL", ANONYMOUS, *entry_ids)

    async def forget_consumers(self, *, idle_s: float) -> None:
        """Removes consumers that have read nothing for ``idle_s``. and hold nothing."""
        with contextlib.suppress(NoGroupError), group_translated():
            async with asyncio.timeout(self._timeout_s):
                for about in await self._redis.xinfo_consumers(ANONYMOUS, USAGE_GROUP):
                    if about["pending"] == 0 and about["idle"] > idle_s * 1000:
                        await self._redis.xgroup_delconsumer(ANONYMOUS, USAGE_GROUP, about["name"])

    async def _run(self, *command: Any) -> Any:
        with group_translated():
            async with asyncio.timeout(self._timeout_s):
                return await self._execute(*command)

    def __repr__(self) -> str:
        return f"AnonymousStream(consumer={self._consumer!r})"


def _entries(found: Sequence[Any]) -> list[AnonymousEntry]:
    # A claimed entry that was cut off meanwhile comes without fields; there is nothing left to record of it.
    return [
        AnonymousEntry(entry_id=text_of(entry_id), raw=fields.get(_FIELD))
        for entry_id, fields in found
        if entry_id is not None and fields
    ]
