"""The data planes' functions in Redis: a control plane loads them, and keeps them loaded."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis as RedisClient

from controlplane.errors import RedisUnavailableError
from controlplane.publish import connection
from controlplane.publish.functions import Functions
from deploy.local.redis import CONTROLPLANE, OPERATOR, Redis
from shared.keyspace import SHARDS
from shared.quota.library import LIBRARY, Library
from tests.integration.controlplane.conftest import fresh_database, serving, settings_for
from tests.integration.controlplane.test_publication import fenced, minted, until

pytestmark = pytest.mark.redis
ANOTHER = Library(f"{LIBRARY.text}\n-- Of another release.\n")


async def libraries(client: RedisClient) -> set[str]:
    return {one[1].decode() for one in await client.function_list()}


@pytest.fixture
async def user(redis: Redis, client: RedisClient) -> AsyncIterator[RedisClient]:
    """A client of the control plane's user; the server has no functions."""
    await client.function_flush()
    async with connection.connect(redis.url_of(CONTROLPLANE), connect_timeout_s=2.0) as own:
        yield own


async def test_functions_are_loaded_once_and_beside_those_of_another_release(user: RedisClient, client: RedisClient):
    ours, theirs = Functions(user, timeout_s=2), Functions(user, timeout_s=2, library=ANOTHER)
    assert not await ours.are_loaded()
    assert await ours.load()
    assert (await ours.are_loaded(), await theirs.are_loaded()) == (True, False)
    # As another control plane would that has looked at the same time.
    assert not await ours.load()
    assert await theirs.load()
    assert (await ours.are_loaded(), await theirs.are_loaded()) == (True, True)
    assert await libraries(client) == {LIBRARY.name, ANOTHER.name}
    await client.function_delete(ANOTHER.name)


async def test_a_library_that_has_our_names_but_not_our_content_is_not_taken_for_ours(
    user: RedisClient, client: RedisClient
):
    await client.function_load(LIBRARY.source.replace(f"name={LIBRARY.name}", "name=of_a_stranger"))
    with pytest.raises(RedisUnavailableError):
        await Functions(user, timeout_s=2).load()
    await client.function_delete("of_a_stranger")


async def test_a_redis_that_is_away_or_refuses_is_said_so(tmp_path, redis: Redis):
    with Redis(tmp_path) as server:
        url = server.url
    async with connection.connect(url, connect_timeout_s=0.5) as client:
        for attempt in (Functions(client, timeout_s=0.5).are_loaded(), Functions(client, timeout_s=0.5).load()):
            with pytest.raises(RedisUnavailableError):
                await attempt
    async with connection.connect(redis.url_of(OPERATOR), connect_timeout_s=2.0) as client:
        with pytest.raises(RedisUnavailableError, match="NoPermissionError"):
            await Functions(client, timeout_s=2).are_loaded()


async def test_no_shard_is_stamped_before_the_functions_are_loaded(tmp_path, postgres_server):
    with Redis(tmp_path) as server:
        async with connection.connect(server.url, connect_timeout_s=1) as admin:
            await admin.execute_command("ACL", "SETUSER", f"gateway_{CONTROLPLANE}", "-function|load")
            settings = settings_for(await fresh_database(postgres_server), server.url_of(CONTROLPLANE))
            async with serving(settings) as gateway:
                # Long enough for a whole round: a commit is published while no shard is stamped.
                await minted(gateway)
                assert await admin.keys("*:fence") == []
                assert await libraries(admin) == set()
                await admin.execute_command("ACL", "SETUSER", f"gateway_{CONTROLPLANE}", "+function|load")
                await until(lambda: fenced(admin))
                assert await libraries(admin) == {LIBRARY.name}
                assert len(await admin.keys("*:fence")) == len(SHARDS)


async def test_functions_that_redis_alone_forgets_are_loaded_again(gateway, client: RedisClient):
    await until(lambda: fenced(client))
    fences = [await client.get(name) for name in await client.keys("*:fence")]
    await client.function_flush()
    await until(lambda: libraries(client), timeout_s=5.0)
    assert await libraries(client) == {LIBRARY.name}
    assert [await client.get(name) for name in await client.keys("*:fence")] == fences
