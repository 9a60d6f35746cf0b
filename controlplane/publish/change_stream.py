"""The stream of changes by which control planes tell each other what to tell their watchers.

An entry's id is its revision, and the script that appends it refuses one that is not above the last: whoever reads the
stream sees every change in the order of the revisions, whatever the order in which they were drawn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from redis.asyncio import Redis

from controlplane.core.changes import Change, ChangeKind
from controlplane.publish.connection import translated
from controlplane.publish.consumer_group import text_of
from shared import keyspace, logs

_HERE = Path(__file__).parent
# Entries that are kept, about: a control plane that was away for longer has its watchers take a snapshot.
MAX_ENTRIES = 10_000
_BATCH = 500
_KINDS = {kind.value: kind for kind in ChangeKind}

_log = logs.get("controlplane.publish.changes")


class ChangeEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry. ``change`` is None when this release does not understand it."""

    revision: int
    # The revision of the entry before it, 0 for the first.
    previous: int
    change: Change | None


class ChangeStream:
    """Appends and reads. Every method raises ``RedisUnavailableError``."""

    def __init__(self, redis: Redis, *, timeout_s: float, max_entries: int = MAX_ENTRIES) -> None:
        # The library does not type the command that takes any command.
        self._execute: Any = redis.execute_command
        self._timeout_s = timeout_s
        self._max_entries = max_entries
        self._append = redis.register_script((_HERE / "append_change.lua").read_text())

    async def append(self, change: Change) -> int | None:
        """Appends the change at its revision; None when done, else the revision that the next must be above."""
        arguments = [change.revision, self._max_entries, change.kind.value, change.id, change.version]
        with translated():
            async with asyncio.timeout(self._timeout_s):
                answer: int = await self._append(keys=[keyspace.CHANGES], args=arguments)
        return None if answer < 0 else answer

    async def newest(self, count: int) -> list[ChangeEntry]:
        """The last entries, oldest first."""
        with translated():
            async with asyncio.timeout(self._timeout_s):
                found = await self._execute("XREVRANGE", keyspace.CHANGES, "+", "-", "COUNT", count)
        return [_entry(*one) for one in reversed(found)]

    async def read(self, after: int, *, block_s: float) -> list[ChangeEntry]:
        """Entries above a revision; waits up to ``block_s`` for the first."""
        command = ("XREAD", "COUNT", _BATCH, "BLOCK", round(block_s * 1000), "STREAMS", keyspace.CHANGES)
        with translated():
            async with asyncio.timeout(block_s + self._timeout_s):
                answer = await self._execute(*command, f"{after}-0")
        streams = answer.items() if isinstance(answer, dict) else answer or ()
        return [_entry(*one) for _, entries in streams for one in entries]

    def __repr__(self) -> str:
        return f"ChangeStream(timeout_s={self._timeout_s})"


def _entry(entry_id: bytes | str, fields: dict[bytes, bytes] | Sequence[bytes]) -> ChangeEntry:
    revision = int(text_of(entry_id).split("-", 1)[0])
    # One command of the library makes dictionaries of the fields, another leaves them as they come.
    pairs = fields if isinstance(fields, dict) else dict(zip(fields[::2], fields[1::2], strict=False))
    named = {text_of(name): value.decode("utf-8", "replace") for name, value in pairs.items()}
    try:
        change = Change(
            kind=_KINDS[named.get("k", "")], id=named.get("i", ""), version=int(named.get("v", "0")), revision=revision
        )
    except (KeyError, ValueError):
        _log.warning("change_not_understood", revision=revision)
        change = None
    previous = named.get("p", "")
    return ChangeEntry(revision=revision, previous=int(previous) if previous.isdigit() else 0, change=change)
