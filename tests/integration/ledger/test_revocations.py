"""The revocations outbox, filled as the console would."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis as RedisClient

from controlplane.core.keys import Key
from controlplane.core.tenants import Tenant
from controlplane.errors import AlreadyExistsError, StoreUnavailableError
from controlplane.publish import connection
from controlplane.publish.publisher import StatePublisher
from controlplane.publish.redis_state import RedisState
from controlplane.store import engine
from controlplane.store.backends import PostgresBackends, RoutedBackends
from controlplane.store.keys import PostgresKeys
from controlplane.store.policies import PostgresPolicies
from controlplane.store.tenants import PostgresTenants
from controlplane.tasks.publish import OutboxDrain
from controlplane.tasks.revocations import RevocationOutbox
from deploy.local.postgres import Postgres
from deploy.local.redis import Redis
from shared import keyspace
from shared.keyspace import KeyId, TenantId
from shared.records import KeyState
from shared.sealing import Sealer
from tests.integration import servers
from tests.integration.hubs import hub_over

TENANT = TenantId(str(uuid.UUID(int=77)))
HASHED = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA"
# What is told at once comes long before the next poll, and what is not comes with it.
POLL_S = 3.0
NOTIFIED_S = 0.6 * POLL_S
POLLED_S = POLL_S + 15.0

keys = PostgresKeys()


def publisher_of(client: RedisClient) -> StatePublisher:
    sealer = Sealer(bytes(32))
    tenants = PostgresTenants()
    return StatePublisher(
        keys=keys,
        tenants=tenants,
        backends=RoutedBackends(static=(), added=PostgresBackends(), sealer=sealer),
        policies=PostgresPolicies(),
        state=RedisState(client, timeout_s=1.0, prompt_log_days=30),
        watchers=hub_over(client),
        sealer=sealer,
    )


def outbox_of(client: RedisClient, *, poll_s: float = POLL_S) -> RevocationOutbox:
    return RevocationOutbox(keys=keys, publisher=publisher_of(client), poll_s=poll_s)


async def minted(count: int, *, group: str = "a") -> list[KeyId]:
    now = dt.datetime.now(dt.UTC)
    with contextlib.suppress(AlreadyExistsError):
        await PostgresTenants().create(Tenant(id=TENANT, name="acme", created_at=now))
    made = []
    for number in range(count):
        key = Key(
            id=KeyId(str(uuid.uuid4())),
            tenant_id=TENANT,
            tenant="acme",
            prefix=f"nz_{group}{number:08d}",
            name="k",
            created_at=now,
        )
        made.append((await keys.create(key, HASHED)).id)
    return made


@contextlib.asynccontextmanager
async def console(url: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A connection with the rights of the console role."""
    made = await asyncpg.connect(url, ssl=False)
    try:
        await made.execute("SET ROLE console")
        yield made
    finally:
        await made.close()


async def insert(writer: asyncpg.Connection[Any], key_id: str, reason: str = "leaked") -> None:
    await writer.execute("INSERT INTO gateway.revocations (key_id, reason) VALUES ($1, $2)", key_id, reason)


@contextlib.asynccontextmanager
async def running(*outboxes: RevocationOutbox) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(each.run()) for each in outboxes]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)


async def until(condition: Callable[[], Awaitable[bool]], timeout_s: float = 30.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not await condition():
            await asyncio.sleep(0.005)


async def is_refused(client: RedisClient, key_id: KeyId) -> bool:
    version = await client.hget(keyspace.live(keyspace.shard_of(TENANT)), keyspace.key_scope(key_id))
    return version is not None and int(version) < 0


async def open_rows() -> int:
    async with engine.connection() as held:
        return int(await held.fetchval("SELECT count(*) FROM gateway.revocations WHERE processed_at IS NULL"))


async def is_listening(superuser_url: str) -> bool:
    return bool(await listeners(superuser_url))


async def listeners(superuser_url: str) -> list[int]:
    reader = await asyncpg.connect(superuser_url, ssl=False)
    try:
        rows = await reader.fetch(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
        )
        return [row["pid"] for row in rows]
    finally:
        await reader.close()


@pytest.fixture
def superuser_url(migrated_postgres: Postgres, database: str) -> str:
    return migrated_postgres.dsn_of(database.rsplit("/", 1)[1])


@pytest.fixture
async def writer(superuser_url: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    async with console(superuser_url) as writer:
        yield writer


async def test_an_inserted_row_revokes_its_key_at_once(client, writer, superuser_url):
    (key_id,) = await minted(1)
    async with running(outbox_of(client, poll_s=30)):
        await until(lambda: is_listening(superuser_url))
        await insert(writer, key_id)
        await until(lambda: is_refused(client, key_id), timeout_s=NOTIFIED_S)
    key = await keys.get(key_id)
    assert key.state is KeyState.REVOKED
    assert await open_rows() == 0


async def test_rows_from_before_the_start_are_done(client, writer):
    made = await minted(3)
    for key_id in made:
        await insert(writer, key_id)
    assert await outbox_of(client).consume_open() == 3
    assert [await is_refused(client, key_id) for key_id in made] == [True] * 3


async def test_a_second_revocation_of_a_key_changes_nothing(client, writer):
    (key_id,) = await minted(1)
    await insert(writer, key_id)
    await insert(writer, key_id)
    assert await outbox_of(client).consume_open() == 2
    version = (await keys.get(key_id)).version
    await insert(writer, key_id)
    assert await outbox_of(client).consume_open() == 1
    assert (await keys.get(key_id)).version == version


async def test_an_unknown_key_is_processed_and_holds_up_nobody(client, writer):
    (key_id,) = await minted(1)
    await insert(writer, str(uuid.uuid4()))
    await insert(writer, key_id)
    assert await outbox_of(client).consume_open() == 2
    assert await is_refused(client, key_id)
    assert await open_rows() == 0


async def test_interleaved_long_transactions_skip_no_row(client, writer, superuser_url):
    """Rows that become visible in another order than that of their ids, drained by two replicas meanwhile."""
    made = await minted(12)
    async with contextlib.AsyncExitStack() as stack:
        writers = [await stack.enter_async_context(console(superuser_url)) for _ in range(4)]
        await stack.enter_async_context(running(outbox_of(client, poll_s=0.1), outbox_of(client, poll_s=0.1)))
        transactions = [each.transaction() for each in writers]
        for number, (each, transaction) in enumerate(zip(writers, transactions, strict=True)):
            await transaction.start()
            for key_id in made[number::4]:
                await insert(each, key_id)
        await insert(writer, (late := (await minted(1, group="b"))[0]))
        await until(lambda: is_refused(client, late))
        for position in (3, 1, 2, 0):
            await transactions[position].commit()
            for key_id in made[position::4]:
                await until(lambda key_id=key_id: is_refused(client, key_id))  # type: ignore[misc]
    assert await open_rows() == 0


async def test_a_row_that_is_rolled_back_revokes_nothing(client, writer):
    (key_id,) = await minted(1)
    async with running(outbox_of(client, poll_s=0.05)):
        transaction = writer.transaction()
        await transaction.start()
        await insert(writer, key_id)
        await transaction.rollback()
        (other,) = await minted(1, group="b")
        await insert(writer, other)
        await until(lambda: is_refused(client, other))
    assert (await keys.get(key_id)).state is KeyState.ACTIVE


async def test_without_its_listener_a_revocation_comes_with_the_next_poll(client, writer, superuser_url):
    first, second = await minted(2)
    async with running(outbox_of(client)):
        await until(lambda: is_listening(superuser_url))
        superuser = await asyncpg.connect(superuser_url, ssl=False)
        try:
            for pid in await listeners(superuser_url):
                await superuser.execute("SELECT pg_terminate_backend($1)", pid)
            await insert(writer, first)
            await until(lambda: is_refused(client, first), timeout_s=POLLED_S)
        finally:
            await superuser.close()
        await until(lambda: is_listening(superuser_url))
        await insert(writer, second)
        await until(lambda: is_refused(client, second), timeout_s=NOTIFIED_S)


async def test_a_key_that_an_operator_is_changing_is_revoked_afterwards(client, writer):
    (key_id,) = await minted(1)
    await insert(writer, key_id)

    async def change_slowly(held: asyncio.Event, release: asyncio.Event) -> None:
        async with engine.transaction() as changing:
            await changing.execute("SELECT FROM gateway.api_keys WHERE id = $1 FOR UPDATE", key_id)
            held.set()
            await release.wait()

    held, release = asyncio.Event(), asyncio.Event()
    changing = asyncio.create_task(change_slowly(held, release))
    await held.wait()
    async with running(outbox_of(client, poll_s=0.05)):
        await asyncio.sleep(0)
        release.set()
        await until(lambda: is_refused(client, key_id))
    await changing


async def test_a_failure_in_between_leaves_the_row_open(client, writer):
    (key_id,) = await minted(1)
    await insert(writer, key_id)

    class Failing(PostgresKeys):
        async def change(self, reference: str, change: Callable[[Key, dt.datetime], Key]) -> Key:
            await super().change(reference, change)
            raise StoreUnavailableError("gone")

    with pytest.raises(StoreUnavailableError):
        await RevocationOutbox(keys=Failing(), publisher=publisher_of(client)).consume_open()
    assert (await keys.get(key_id)).state is KeyState.ACTIVE
    assert await open_rows() == 1
    assert await outbox_of(client).consume_open() == 1


async def test_redis_away_the_revocation_is_published_when_it_answers(database, writer, tmp_path):
    (key_id,) = await minted(1)
    with Redis(tmp_path) as server:
        async with connection.connect(server.url, connect_timeout_s=1.0) as client:
            await asyncio.to_thread(server.kill)
            await insert(writer, key_id)
            assert await outbox_of(client).consume_open() == 1
            assert (await keys.get(key_id)).state is KeyState.REVOKED
            await asyncio.to_thread(server.start)
            drain = OutboxDrain(publisher=publisher_of(client))
            assert await drain.drain_once() > 0
            assert await is_refused(client, key_id)


async def test_postgres_restarted_the_outbox_goes_on(client, tmp_path):
    with Postgres(tmp_path, fsync=False) as server:
        await servers.make_template(server)
        url = await servers.copy_of_template(server)
        superuser_url = server.dsn_of(url.rsplit("/", 1)[1])
        await servers.connect(url)
        try:
            first, second = await minted(2)
            async with running(outbox_of(client, poll_s=0.2)):
                async with console(superuser_url) as writer:
                    await insert(writer, first)
                await until(lambda: is_refused(client, first))
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start)
                async with console(superuser_url) as writer:
                    await insert(writer, second)
                await until(lambda: is_refused(client, second))
                await until(lambda: is_listening(superuser_url))
        finally:
            await engine.disconnect()
