"""A Redis that forgets, a user that may not look, state that was not rebuilt, data planes that are not ready."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from controlplane.core.replicas import ReplicaRecord
from controlplane.doctor import Finding, Status, clocks, redis_server
from controlplane.doctor.checks import Check, run
from controlplane.publish import connection
from controlplane.publish.fence import Fences
from controlplane.publish.replicas import Replicas
from deploy.local.redis import CONTROLPLANE, DATAPLANE
from shared.clock import SystemClock
from shared.keyspace import SHARDS

pytestmark = pytest.mark.redis
TIMEOUT_S = 2.0


def by_name(findings: Sequence[Finding]) -> dict[str, Status]:
    return {finding.name: finding.status for finding in findings}


async def test_redis_as_the_gateway_needs_it_is_well(client):
    found = await redis_server.server(client, Fences(client, timeout_s=TIMEOUT_S))

    assert by_name([*found, *await redis_server.append_fsync(client)]) == {
        "redis.version": Status.OK,
        "redis.policy": Status.OK,
        "redis.append-only-file": Status.OK,
        "redis.memory": Status.OK,
        "redis.appendfsync": Status.OK,
    }


async def test_redis_that_forgets_is_found_with_what_to_set(careless):
    found = await redis_server.server(careless, Fences(careless, timeout_s=TIMEOUT_S))
    found += await redis_server.append_fsync(careless)

    assert [finding.status for finding in found if finding.name == "redis.policy"] == [Status.FAILED] * 2
    advice = " ".join(finding.advice for finding in found)
    for setting in ("maxmemory-policy noeviction", "appendonly yes", "appendfsync everysec", "set maxmemory"):
        assert setting in advice


async def test_user_of_a_control_plane_sees_all_but_what_only_config_tells_and_asks_for_nothing_else(redis, client):
    await client.execute_command("ACL", "LOG", "RESET")
    async with connection.connect(redis.url_of(CONTROLPLANE), connect_timeout_s=TIMEOUT_S) as user:
        fences, clock = Fences(user, timeout_s=TIMEOUT_S), SystemClock()
        found = [
            *await redis_server.reachable(user),
            *await redis_server.server(user, fences),
            *await redis_server.append_fsync(user),
            *await redis_server.fences(fences),
            *await redis_server.data_planes(Replicas(user, timeout_s=TIMEOUT_S)),
            *await clocks.compared("redis", lambda: redis_server.unix_s(user), clock),
        ]

    assert {name for name, status in by_name(found).items() if status is Status.SKIPPED} == {"redis.appendfsync"}
    assert await client.execute_command("ACL", "LOG") == []


async def test_user_of_a_data_plane_is_told_what_it_may_not_see(redis):
    async with connection.connect(redis.url_of(DATAPLANE), connect_timeout_s=TIMEOUT_S) as user:

        async def look() -> list[Finding]:
            return await redis_server.data_planes(Replicas(user, timeout_s=TIMEOUT_S))

        (found,) = await run([Check(name="data-planes", look=look)], timeout_s=TIMEOUT_S)

    assert found.status is Status.SKIPPED


@pytest.mark.parametrize("url", ["redis://gateway_controlplane:wrong@{place}/0", "redis://127.0.0.1:1/0"])
async def test_redis_that_does_not_answer_this_user_is_found(redis, url):
    async with connection.connect(url.format(place=f"127.0.0.1:{redis.port}"), connect_timeout_s=1.0) as user:
        (found,) = await redis_server.reachable(user)

    assert found.status is Status.FAILED
    assert "wrong" not in repr(found)


async def test_shards_that_are_not_rebuilt_are_found_until_all_of_them_are(client):
    fences = Fences(client, timeout_s=TIMEOUT_S)
    token = await fences.begin(SHARDS, (await fences.server()).incarnation)
    for shard in SHARDS[1:]:
        await fences.stamp(shard, token)

    (found,) = await redis_server.fences(fences)
    assert (found.status, found.seen) == (Status.FAILED, f"missing or of another run: {SHARDS[0]}")

    await fences.stamp(SHARDS[0], token)
    assert by_name(await redis_server.fences(fences)) == {"state.fences": Status.OK}


@pytest.mark.parametrize(
    ("workers", "status"),
    [
        ((), Status.FAILED),
        ((ReplicaRecord(worker_id="1", ready=True), ReplicaRecord(worker_id="2")), Status.FAILED),
        ((ReplicaRecord(worker_id="1", ready=True, rejected="unknown field"),), Status.WARNING),
        ((ReplicaRecord(worker_id="1", ready=True), ReplicaRecord(worker_id="2", ready=True)), Status.OK),
    ],
)
async def test_data_planes_are_judged_by_the_worst_of_them(client, workers, status):
    registry = Replicas(client, timeout_s=TIMEOUT_S)
    await registry.report(*workers)

    assert by_name(await redis_server.data_planes(registry)) == {"data-planes": status}
