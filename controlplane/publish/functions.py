"""The data planes' functions in Redis, which control planes load: a data plane may call them and nothing else.

Each control plane keeps the library of its own version loaded and touches no other: data planes of another version may
still use theirs. Nobody drops one.
"""

from __future__ import annotations

import asyncio

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from controlplane.publish.connection import translated
from shared.quota.library import LIBRARY, PROBE, Library, is_unknown


class Functions:
    """Keeps a library loaded."""

    def __init__(self, redis: Redis, *, timeout_s: float, library: Library = LIBRARY) -> None:
        self._redis = redis
        self._timeout_s = timeout_s
        self._library = library

    async def are_loaded(self) -> bool:
        """Whether the server has them: one short call. Raises ``RedisUnavailableError``."""
        with translated():
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._redis.fcall(self._library.function(PROBE), 0)
            except ResponseError as fault:
                if is_unknown(fault):
                    return False
                raise
        return True

    async def load(self) -> bool:
        """Loads them; False when another control plane just has. Raises ``RedisUnavailableError``."""
        with translated():
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._redis.function_load(self._library.source)
            except ResponseError as fault:
                if self._library.is_there(fault):
                    return False
                raise
        return True

    def __repr__(self) -> str:
        return f"Functions({self._library.name})"
