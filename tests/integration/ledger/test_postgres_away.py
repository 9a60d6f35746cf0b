"""Postgres goes away under load: usage waits in Redis, arrives exactly once, and nothing unproven is believed."""

from __future__ import annotations

import asyncio

from controlplane.store import engine
from deploy.local.postgres import Postgres
from shared import keyspace
from tests.integration import servers
from tests.integration.ledger.planes import Keepers
from tests.integration.ledger.test_rebuild import agree
from tests.integration.ledger.traffic import Traffic, add_tenant


async def test_every_row_arrives_exactly_once_and_a_redis_that_loses_its_data_meanwhile_denies(client, tmp_path):
    with Postgres(tmp_path, fsync=False) as server:
        await asyncio.to_thread(servers_template, server)
        url = await servers.copy_of_template(server)
        await servers.connect(url)
        try:
            await _outage(server, client)
        finally:
            await engine.disconnect()


def servers_template(server: Postgres) -> None:
    asyncio.run(servers.make_template(server))


async def _outage(server: Postgres, client) -> None:
    traffic, keepers = Traffic(client, await add_tenant()), Keepers(client)
    watching = asyncio.create_task(traffic.watch())
    async with keepers.running(keepers.fence_keeper, keepers.drain, keepers.guard):
        async with traffic.running(clients=4):
            await traffic.more(50)
            await asyncio.to_thread(server.kill)
            # Nobody's request waits for Postgres.
            await traffic.more(300)
            assert await client.xlen(keyspace.usage(traffic.shard)) >= 300
            await asyncio.to_thread(server.start)
            await traffic.more(50)
        await agree(traffic)
        await asyncio.to_thread(server.stop)
        await client.flushall()
        await asyncio.sleep(0.5)
        assert not await client.exists(keyspace.fence(traffic.shard))
        await asyncio.to_thread(server.start)
        await agree(traffic)
    assert not watching.done()
    watching.cancel()
    async with engine.connection() as held:
        rows = await held.fetchval("SELECT count(*) FROM gateway.audit_log")
        requests = await held.fetchval("SELECT count(DISTINCT request_id) FROM gateway.audit_log")
    assert rows == requests == traffic.settled
