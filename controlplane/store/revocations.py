"""The outbox by which other services revoke keys: rows of ``gateway.revocations``, and the notification of new ones.

Rows are taken with SKIP LOCKED, never by "greater than the last id": transactions commit in another order than that in
which they were numbered, and a row that became visible late must not be skipped.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import msgspec

from controlplane.errors import StoreUnavailableError
from controlplane.store import engine

CHANNEL = "key_revoked"
# How often a listening connection is asked whether it is still there.
CHECK_EVERY_S = 15.0
CHECK_TIMEOUT_S = 3.0


class Revocation(msgspec.Struct, frozen=True, kw_only=True):
    """One row: which key is to be revoked, and why."""

    id: int
    key_id: uuid.UUID
    reason: str


async def take_one(revoke: Callable[[Revocation], Awaitable[None]]) -> Revocation | None:
    """Has ``revoke`` do one open row in the row's own transaction and marks it processed; None when there is none.

    Rows that another replica holds are left to it. Raises ``StoreUnavailableError`` and whatever ``revoke`` raises;
    the row stays open then.
    """
    async with engine.transaction() as connection:
        row = await connection.fetchrow(
            "SELECT id, key_id, reason FROM gateway.revocations WHERE processed_at IS NULL"
            " ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED"
        )
        if row is None:
            return None
        revocation = Revocation(id=row["id"], key_id=row["key_id"], reason=row["reason"])
        await revoke(revocation)
        await connection.execute("UPDATE gateway.revocations SET processed_at = now() WHERE id = $1", revocation.id)
    return revocation


async def listen(heard: Callable[[], None]) -> None:
    """Calls ``heard`` once when listening and then for each notification, until the connection is lost.

    The connection is one of its own and is checked now and then, so that a peer that vanished is noticed. Raises
    ``StoreUnavailableError``, always, unless it is cancelled.
    """
    lost = asyncio.Event()
    async with _own_connection() as connection:
        with engine.translated():

            def wake(*_: Any) -> None:
                heard()

            def end(*_: Any) -> None:
                lost.set()

            connection.add_termination_listener(end)
            await connection.add_listener(CHANNEL, wake)
            heard()
            while not await _within(CHECK_EVERY_S, lost):
                await connection.execute("SELECT 1", timeout=CHECK_TIMEOUT_S)
            raise StoreUnavailableError("Postgres closed the listening connection")


@contextlib.asynccontextmanager
async def _own_connection() -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await engine.new_connection("listen")
    try:
        yield connection
    finally:
        # Not closed politely: the server would be waited for, and it may be the one that is gone.
        connection.terminate()


async def _within(timeout_s: float, event: asyncio.Event) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return False
    return True
