"""Revokes the keys that other services have put into ``gateway.revocations``.

A notification wakes it at once; it looks every second anyway, so a lost notification or a listener that was away delays
a revocation by a second and never loses it. The key is revoked in the row's own transaction, by the same path as the
RPC, and published afterwards; the outbox publishes it should this process end in between.
"""

from __future__ import annotations

import asyncio

from controlplane.core import keys as rules
from controlplane.core.ports import Keys, Publisher
from controlplane.errors import NotFoundError, StoreUnavailableError
from controlplane.store import revocations
from controlplane.store.revocations import Revocation
from shared import logs
from shared.backoff import Backoff
from shared.keyspace import KeyId

POLL_S = 1.0

_log = logs.get("controlplane.tasks.revocations")


class RevocationOutbox:
    """Consumes the outbox. Any number of replicas may: a row that one has taken is skipped by the others."""

    def __init__(self, *, keys: Keys, publisher: Publisher, poll_s: float = POLL_S) -> None:
        self._keys = keys
        self._publisher = publisher
        self._poll_s = poll_s
        self._heard = asyncio.Event()

    async def run(self) -> None:
        """Listens and consumes until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen())
            tasks.create_task(self._consume())

    async def consume_open(self) -> int:
        """Does every row that is open and not taken by others; how many. Raises ``StoreUnavailableError``."""
        count = 0
        while (revocation := await revocations.take_one(self._revoke)) is not None:
            count += 1
            key_id = KeyId(str(revocation.key_id))
            try:
                await self._publisher.publish_key(key_id)
            except NotFoundError:
                # Said when it was taken: there was no such key.
                continue
            _log.info("key_revoked_by_outbox", key_id=key_id, revocation=revocation.id, reason=revocation.reason[:200])
        return count

    async def _revoke(self, revocation: Revocation) -> None:
        try:
            await self._keys.change(str(revocation.key_id), rules.revoked)
        except NotFoundError:
            # Processed all the same: no later state of the world can make it mean something.
            _log.warning("revocation_of_unknown_key", key_id=str(revocation.key_id), revocation=revocation.id)

    async def _consume(self) -> None:
        while True:
            self._heard.clear()
            try:
                await self.consume_open()
            except StoreUnavailableError as fault:
                _log.warning("revocations_delayed", fault=str(fault))
            try:
                async with asyncio.timeout(self._poll_s):
                    await self._heard.wait()
            except TimeoutError:
                continue

    async def _listen(self) -> None:
        backoff = Backoff()

        def heard() -> None:
            backoff.reset()
            self._heard.set()

        while True:
            try:
                await revocations.listen(heard)
            except StoreUnavailableError as fault:
                _log.info("listening_interrupted", fault=str(fault))
                await asyncio.sleep(backoff.next_s())

    def __repr__(self) -> str:
        return f"RevocationOutbox(poll_s={self._poll_s})"
