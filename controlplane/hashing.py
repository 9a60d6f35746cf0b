"""Argon2id in threads: bounded, so that no flood of keys can take the machine.

Each hash costs tens of megabytes and tens of milliseconds by design. A pool has few threads and a short queue; what
does not fit is refused at once instead of waiting for its deadline.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import argon2
import msgspec
from argon2.exceptions import InvalidHashError, VerificationError

from controlplane.errors import OverloadedError


class Argon2Cost(msgspec.Struct, frozen=True, kw_only=True):
    """Parameters of new hashes; a stored hash carries its own."""

    time_cost: int
    memory_kib: int
    parallelism: int


class HashingPool:
    """Hashes and verifies keys in at most ``threads`` threads, with at most ``queue`` calls waiting."""

    def __init__(self, cost: Argon2Cost, *, threads: int, queue: int) -> None:
        self._hasher = argon2.PasswordHasher(
            time_cost=cost.time_cost, memory_cost=cost.memory_kib, parallelism=cost.parallelism
        )
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="argon2")
        self._capacity = threads + queue
        self._held = 0
        self._decoy = _decoy(cost)

    async def hash(self, api_key: str) -> str:
        """The Argon2id hash of a key. Raises ``OverloadedError``."""
        return await self._run(lambda: self._hasher.hash(api_key))

    async def verify(self, hashed: str | None, api_key: str) -> bool:
        """Whether the key belongs to the hash; without a hash the same work is done for nothing.

        Raises ``OverloadedError``.
        """
        return await self._run(lambda: self._verify_now(hashed, api_key))

    async def close(self) -> None:
        """Ends the threads; what runs is finished, what waits is dropped."""
        await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)

    async def _run[T](self, work: Callable[[], T]) -> T:
        if not self._has_room():
            raise OverloadedError("the hashing pool is full")
        self._held += 1
        future = self._threads.submit(work)
        # The place is taken until the thread is done, also when the caller has gone.
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._release))
        return await asyncio.wrap_future(future)

    def _verify_now(self, hashed: str | None, api_key: str) -> bool:
        try:
            return self._hasher.verify(hashed or self._decoy, api_key)
        except (VerificationError, InvalidHashError):
            return False

    def _has_room(self) -> bool:
        return self._held < self._capacity

    def _release(self) -> None:
        self._held -= 1

    def __repr__(self) -> str:
        return f"HashingPool(held={self._held}, capacity={self._capacity})"


def _decoy(cost: Argon2Cost) -> str:
    """A hash of the right form and cost that belongs to no key: its salt and its digest are random."""
    salt, digest = (base64.b64encode(secrets.token_bytes(size)).decode().rstrip("=") for size in (16, 32))
    return f"$argon2id$v=19$m={cost.memory_kib},t={cost.time_cost},p={cost.parallelism}${salt}${digest}"
