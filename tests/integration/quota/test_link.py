"""The multiplexed connection: order, deadlines, suspension, trust, reconnection."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dataplane.errors import CannotCheckError, LimitExceededError
from dataplane.quota.calls import PrincipalCalls
from dataplane.quota.link import READINESS_CHECK, Link
from dataplane.values import Lease, Principal
from deploy.local.redis import Redis
from shared import keyspace
from shared.keyspace import LeaseId, Shard
from shared.lifecycle import Readiness
from tests.fakes.published_state import PublishedState
from tests.fakes.redis_link import IMPATIENT_S, PATIENT_S, running_link
from tests.fakes.tcp_proxy import TCPProxy
from tests.fakes.waiting import until
from tests.integration.quota.caller import CRASHED, DEMAND
from tests.integration.quota.links import leases_of, new_id, through

pytestmark = pytest.mark.redis
SHARD = Shard("s00")


def lease(lease_id: str) -> Lease:
    return Lease(
        lease_id=LeaseId(lease_id),
        shard=SHARD,
        day="20261121",
        month="202611",
        prompt_bound=0,
        num_predict=0,
        taken_s=0.0,
    )


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Redis]:
    """A server that a test may stop, kill and reconfigure."""
    with Redis(tmp_path) as server:
        yield server
        if server.is_running:
            os.kill(server.pid, signal.SIGCONT)


@pytest.fixture
def own_state(own_redis: Redis) -> Iterator[PublishedState]:
    state = PublishedState(own_redis.url)
    state.stamp()
    yield state
    state.close()


async def test_commands_of_one_turn_are_answered_to_their_callers(link: Link, state: PublishedState):
    for number in range(200):
        state.client.set(f"n:{number}", number)
    replies = await asyncio.gather(*(link.get(f"n:{number}") for number in range(200)))
    assert replies == [[str(number).encode()] for number in range(200)]


async def test_ten_thousand_cancellations_never_mix_up_replies(proxy: TCPProxy, redis: Redis, state: PublishedState):
    source = random.Random(20261121)
    proxy.delay = lambda: source.uniform(0.0, 0.02)
    state.client.mset({f"n:{number}": number for number in range(1000)})
    mixed_up: list[tuple[int, Any]] = []
    answered = cancelled = rounds = 0
    patience_s = 0.08
    async with running_link(through(proxy, redis), timeout_s=PATIENT_S) as link:

        async def ask(number: int) -> None:
            nonlocal answered
            reply = await link.get(f"n:{number}", f"n:{(number + 1) % 1000}")
            answered += 1
            if reply != [str(number).encode(), str((number + 1) % 1000).encode()]:
                mixed_up.append((number, reply))

        async def impatient(number: int) -> None:
            nonlocal cancelled
            task = asyncio.create_task(ask(number))
            await asyncio.sleep(source.uniform(0.0, patience_s))
            cancelled += task.cancel()
            await asyncio.wait((task,))

        while rounds < 20 or min(answered, cancelled) <= 2_000:
            rounds, before = rounds + 1, answered
            await asyncio.gather(*(impatient(source.randrange(1000)) for _ in range(500)))
            # How fast replies come is not what this is about: some shall be waited for and some not.
            share = (answered - before) / 500
            patience_s = min(1.0, patience_s * (2 if share < 0.2 else 0.5 if share > 0.8 else 1))
        assert await link.get("n:7") == [b"7"]
        assert link.counts.suspensions == 0
    assert mixed_up == []
    assert cancelled > 2_000
    assert answered > 2_000


async def test_cancelled_admission_is_taken_back(proxy: TCPProxy, redis: Redis, state: PublishedState):
    principal = state.principal()
    async with running_link(through(proxy, redis), timeout_s=PATIENT_S) as link:
        proxy.delay = lambda: 0.03
        task = asyncio.create_task(leases_of(link).acquire(principal, new_id(), DEMAND, CRASHED))
        await until(lambda: state.slots(principal) == (1, 1, 1))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: state.slots(principal) == (0, 0, 0))
        assert state.usage(principal) == []


async def test_stopped_redis_denies_in_time_and_no_admission_comes_to_life(own_redis: Redis, own_state: PublishedState):
    principals = [own_state.principal() for _ in range(5)]
    async with running_link(own_redis.url, timeout_s=IMPATIENT_S) as link:
        leases = leases_of(link)
        await leases.acquire(principals[0], new_id(), DEMAND, CRASHED)
        os.kill(own_redis.pid, signal.SIGSTOP)

        async def denied(principal: Principal) -> float:
            started_s = time.monotonic()
            with pytest.raises(CannotCheckError):
                await leases.acquire(principal, new_id(), DEMAND, CRASHED)
            return time.monotonic() - started_s

        waits_s = await asyncio.gather(*(denied(principal) for principal in principals for _ in range(20)))
        assert max(waits_s) < 2 * IMPATIENT_S, "one deadline, and no second attempt"
        waits_s = await asyncio.gather(*(denied(principal) for principal in principals))
        assert max(waits_s) < IMPATIENT_S, "a suspended link fails at once"
        os.kill(own_redis.pid, signal.SIGCONT)
        await until(lambda: link.is_trusted)
        assert [own_state.slots(principal)[:2] for principal in principals] == [(1, 1)] + [(0, 0)] * 4
        await leases.acquire(principals[1], new_id(), DEMAND, CRASHED)


async def test_no_admission_comes_to_life_after_the_connection_was_given_up(
    own_redis: Redis, own_state: PublishedState
):
    principal = own_state.principal()
    async with running_link(own_redis.url, timeout_s=IMPATIENT_S) as link:
        leases = leases_of(link)
        await leases.acquire(own_state.principal(), new_id(), DEMAND, CRASHED)  # the script is known from now on
        os.kill(own_redis.pid, signal.SIGSTOP)
        attempts = [leases.acquire(principal, new_id(), DEMAND, CRASHED) for _ in range(8)]
        assert all(isinstance(e, CannotCheckError) for e in await asyncio.gather(*attempts, return_exceptions=True))
        connections = link.counts.connections
        await until(lambda: not link.is_trusted and link._incarnation is None)
        os.kill(own_redis.pid, signal.SIGCONT)
        await until(lambda: link.is_trusted and link.counts.connections > connections)
        assert own_state.slots(principal)[:2] == (0, 0)
        await leases.acquire(principal, new_id(), DEMAND, CRASHED)


async def test_lost_replies_leave_no_lease_behind(proxy: TCPProxy, redis: Redis, state: PublishedState):
    principal = state.principal()
    async with running_link(through(proxy, redis), timeout_s=IMPATIENT_S) as link:
        with pytest.raises(LimitExceededError):
            await leases_of(link).acquire(
                state.principal(concurrent=0), new_id(), DEMAND, CRASHED
            )  # the script is known from now on
        proxy.swallow_replies = True
        with pytest.raises(CannotCheckError):
            await leases_of(link).acquire(principal, new_id(), DEMAND, CRASHED)
        proxy.reset()
        proxy.swallow_replies = False
        await until(lambda: link.is_trusted)
        await until(lambda: state.slots(principal) == (0, 0, 0))
        assert state.usage(principal) == []


async def test_reset_connection_fails_what_is_in_flight_and_comes_back(
    proxy: TCPProxy, redis: Redis, state: PublishedState
):
    principal = state.principal()
    async with running_link(through(proxy, redis), timeout_s=PATIENT_S) as link:
        proxy.swallow_replies = True
        task = asyncio.create_task(leases_of(link).acquire(principal, new_id(), DEMAND, CRASHED))
        await until(lambda: state.slots(principal) == (1, 1, 1))
        proxy.reset()
        proxy.swallow_replies = False
        with pytest.raises(CannotCheckError):
            await task
        await until(lambda: link.is_trusted)
        await until(lambda: state.slots(principal) == (0, 0, 0))


async def test_flushed_data_denies_until_it_is_rebuilt(link: Link, state: PublishedState):
    leases, principal = leases_of(link), state.principal()
    state.client.flushall()
    with pytest.raises(CannotCheckError):
        await leases.acquire(principal, new_id(), DEMAND, CRASHED)
    with pytest.raises(CannotCheckError):
        await leases.check(principal)
    state.stamp(epoch=2)
    state.live(principal, key=1, tenant=1)
    await leases.acquire(principal, new_id(), DEMAND, CRASHED)


async def test_restarted_redis_denies_until_it_is_stamped_again(own_redis: Redis, own_state: PublishedState):
    principal = own_state.principal()
    async with running_link(own_redis.url) as link:
        leases = leases_of(link)
        await leases.acquire(principal, new_id(), DEMAND, CRASHED)
        own_redis.kill()
        await until(lambda: not link.is_trusted)
        own_redis.start(pause=time.sleep)
        await until(lambda: link.is_trusted)
        with pytest.raises(CannotCheckError, match="unfenced"):
            await leases.acquire(principal, new_id(), DEMAND, CRASHED)
        own_state.stamp(epoch=2)
        await leases.acquire(principal, new_id(), DEMAND, CRASHED)


async def test_absent_redis_denies_at_once():
    async with running_link("redis://127.0.0.1:1/0", trusted=False) as link:
        with pytest.raises(CannotCheckError):
            await link.get("anything")
        assert not link.is_trusted


async def test_wrong_password_is_never_trusted(redis: Redis):
    async with running_link(f"redis://:wrong@127.0.0.1:{redis.port}/0", trusted=False) as link:
        await until(lambda: link.counts.connections == 0)
        with pytest.raises(CannotCheckError):
            await link.get("anything")


@pytest.mark.parametrize(
    ("setting", "wrong", "right"),
    [("maxmemory-policy", "allkeys-lru", "noeviction"), ("appendonly", "no", "yes")],
)
async def test_server_that_may_lose_data_is_not_ready(
    own_redis: Redis, own_state: PublishedState, setting: str, wrong: str, right: str
):
    readiness = Readiness((READINESS_CHECK,))
    async with running_link(own_redis.url, readiness=readiness) as link:
        assert readiness.ready
        own_state.client.config_set(setting, wrong)
        await until(lambda: not readiness.ready)
        with pytest.raises(CannotCheckError):
            await link.get("anything")
        own_state.client.config_set(setting, right)
        await until(lambda: readiness.ready)
    assert not readiness.ready


async def test_replica_is_not_trusted(own_redis: Redis, own_state: PublishedState):
    principal = own_state.principal()
    async with running_link(own_redis.url) as link:
        own_state.client.replicaof("127.0.0.1", 1)
        with pytest.raises(CannotCheckError):
            await leases_of(link).acquire(principal, new_id(), DEMAND, CRASHED)
        await until(lambda: not link.is_trusted)
        own_state.client.replicaof("NO", "ONE")
        await until(lambda: link.is_trusted)
        with pytest.raises(CannotCheckError, match="unfenced"):
            await leases_of(link).acquire(principal, new_id(), DEMAND, CRASHED)


async def test_memory_that_is_used_up_denies_and_is_told_once(own_redis: Redis, own_state: PublishedState, capsys):
    principal = own_state.principal()
    async with running_link(own_redis.url) as link:
        own_state.client.config_set("maxmemory", 1)
        for _ in range(3):
            with pytest.raises(CannotCheckError, match="OutOfMemory"):
                await leases_of(link).acquire(principal, new_id(), DEMAND, CRASHED)
    [line] = [line for line in capsys.readouterr().out.splitlines() if "redis_refused" in line]
    assert "OutOfMemoryError" in line


async def test_key_of_the_wrong_type_denies(link: Link, state: PublishedState):
    principal = state.principal()
    state.client.delete(f"gateway:{{{principal.shard}}}:live")
    state.client.set(f"gateway:{{{principal.shard}}}:live", "text")
    with pytest.raises(CannotCheckError):
        await leases_of(link).acquire(principal, new_id(), DEMAND, CRASHED)


@pytest.mark.parametrize("scope", ["key", "tenant"])
async def test_counters_of_the_wrong_type_are_not_taken_for_none(link: Link, state: PublishedState, scope):
    principal = state.principal()
    scopes = {"key": keyspace.key_scope(principal.key_id), "tenant": keyspace.tenant_scope(principal.tenant_id)}
    name = keyspace.counters(principal.shard, scopes[scope])
    state.client.hset(name, "used", 1)
    with pytest.raises(CannotCheckError):
        await leases_of(link).acquire(principal, new_id(), DEMAND, CRASHED)
    assert state.client.type(name) == b"hash"


async def test_missing_permission_denies(redis: Redis, state: PublishedState):
    principal = state.principal()
    rights = ("resetkeys", "~nothing", "+info", "+fcall", "+get", "+ping")
    state.client.execute_command("ACL", "SETUSER", "limited", "on", ">pw", *rights)
    async with running_link(f"redis://limited:pw@127.0.0.1:{redis.port}/0") as link:
        with pytest.raises(CannotCheckError, match="NoPermission"):
            await leases_of(link).acquire(principal, new_id(), DEMAND, CRASHED)
    state.client.execute_command("ACL", "DELUSER", "limited")


async def test_paused_clients_are_denied_in_time(own_redis: Redis, own_state: PublishedState):
    principal = own_state.principal()
    async with running_link(own_redis.url, timeout_s=IMPATIENT_S) as link:
        leases = leases_of(link)
        own_state.client.client_pause(2000, all=True)
        started_s = time.monotonic()
        with pytest.raises(CannotCheckError):
            await leases.acquire(principal, new_id(), DEMAND, CRASHED)
        assert time.monotonic() - started_s < 3 * IMPATIENT_S, "before Redis goes on"
        await until(lambda: link.is_trusted)
        assert own_state.slots(principal) == (0, 0, 0)


async def test_settlement_without_an_undo_is_not_taken_back(proxy: TCPProxy, redis: Redis, state: PublishedState):
    principal, other = state.principal(), state.principal()
    calls = PrincipalCalls(principal, 1000)
    async with running_link(through(proxy, redis), timeout_s=IMPATIENT_S) as link:
        await link.call(SHARD, PrincipalCalls(other, 1000).settle(link.incarnation(SHARD), lease("other"), b"{}", 0))
        proxy.swallow_replies = True
        with pytest.raises(CannotCheckError):
            await link.call(SHARD, calls.settle(link.incarnation(SHARD), lease("one"), b'{"one":1}', 0))
        assert b'{"one":1}' in state.usage(principal)
        assert link.counts.undos == 0
