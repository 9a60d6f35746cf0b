"""The library of scripts: servers that do not know it, or know another one, and who loads it."""

from __future__ import annotations

import asyncio

import pytest

from dataplane.errors import CannotCheckError
from dataplane.quota import scripts
from dataplane.quota.calls import PrincipalCalls
from dataplane.quota.link import Link
from dataplane.quota.scripts import Argument, Library, Script
from deploy.local.redis import DATAPLANE, Redis
from shared import keyspace
from tests.fakes.published_state import PublishedState
from tests.fakes.redis_link import PATIENT_S, running_link
from tests.fakes.tcp_proxy import TCPProxy
from tests.fakes.waiting import until
from tests.integration.quota.caller import CRASHED, DEMAND, run
from tests.integration.quota.links import leases_of, new_id, through

pytestmark = pytest.mark.redis


def libraries(state: PublishedState) -> set[str]:
    """Names of the libraries that the server has."""
    return {one[1].decode() for one in state.client.function_list()}


async def test_flushed_scripts_cause_no_failure(link: Link, state: PublishedState):
    leases, principal = leases_of(link), state.principal(concurrent=None, tenant_concurrent=None)
    for _ in range(3):
        state.client.function_flush()
        await asyncio.gather(*(leases.acquire(principal, new_id(), DEMAND, CRASHED) for _ in range(20)))
    assert state.slots(principal) == (60, 60, 60)


async def test_scripts_are_known_before_anything_is_decided(redis: Redis, state: PublishedState):
    state.client.function_flush()
    async with running_link(redis.url_of(DATAPLANE)):
        assert libraries(state) == {scripts.LIBRARY.name}


async def test_a_burst_of_calls_loads_the_scripts_once(link: Link, state: PublishedState):
    leases, principal = leases_of(link), state.principal(concurrent=None, tenant_concurrent=None)
    state.client.function_flush()
    state.client.config_resetstat()
    await asyncio.gather(*(leases.acquire(principal, new_id(), DEMAND, CRASHED) for _ in range(50)))
    assert state.client.info("commandstats")["cmdstat_function|load"]["calls"] == 1


async def test_scripts_that_another_worker_has_loaded_first_are_no_fault(
    link: Link, state: PublishedState, capsys: pytest.CaptureFixture[str]
):
    principal = state.principal(concurrent=None, tenant_concurrent=None)
    async with running_link(state.url) as other:
        state.client.function_flush()
        state.client.config_resetstat()
        # Both hear that the function is unknown before either of them has loaded it.
        await asyncio.gather(*(leases_of(one).acquire(principal, new_id(), DEMAND, CRASHED) for one in (link, other)))
    loads = state.client.info("commandstats")["cmdstat_function|load"]
    assert (loads["calls"], loads["failed_calls"]) == (2, 1)
    assert "redis_refused" not in capsys.readouterr().out


async def test_two_versions_are_used_beside_each_other(link: Link, state: PublishedState):
    principal = state.principal()
    calls = PrincipalCalls(principal, 1000)
    other = Library(f"{scripts.LIBRARY.text}\n-- Of another release.\n")
    keys = [name(principal.shard) for name in (keyspace.fence, keyspace.live, keyspace.usage, keyspace.deny)]
    for _ in range(2):
        of_nobody: list[Argument] = [link.incarnation(principal.shard), "k:nobody", "t:nobody", ""]
        assert run(state, Script("check", other).call(keys, of_nobody)) == b"missing"
        assert await link.call(principal.shard, calls.check(link.incarnation(principal.shard))) == b"allowed"
    assert libraries(state) == {other.name, scripts.LIBRARY.name}
    state.client.function_delete(other.name)
    assert await link.call(principal.shard, calls.check(link.incarnation(principal.shard))) == b"allowed"


async def test_call_that_is_cancelled_while_the_scripts_are_loaded_mixes_up_nothing_and_is_taken_back(
    proxy: TCPProxy, redis: Redis, state: PublishedState
):
    principal, request_id = state.principal(), new_id()
    state.client.set("n", "1")
    async with running_link(through(proxy, redis), timeout_s=PATIENT_S) as link:
        proxy.delay = lambda: 0.03
        state.client.function_flush()
        acquired = asyncio.create_task(leases_of(link).acquire(principal, request_id, DEMAND, CRASHED))
        await until(lambda: libraries(state))
        others = [asyncio.create_task(link.get("n")) for _ in range(3)]
        await asyncio.sleep(0)
        acquired.cancel()
        assert await asyncio.gather(*others) == [[b"1"]] * 3
        with pytest.raises(asyncio.CancelledError):
            await acquired
        await until(lambda: state.slots(principal) == (0, 0, 0))
        assert link.counts.undos == 1
    assert state.usage(principal) == []


async def test_undo_that_finds_no_scripts_loads_them(proxy: TCPProxy, redis: Redis, state: PublishedState):
    principal = state.principal()
    async with running_link(through(proxy, redis), timeout_s=PATIENT_S) as link:
        proxy.delay = lambda: 0.03
        acquired = asyncio.create_task(leases_of(link).acquire(principal, new_id(), DEMAND, CRASHED))
        await until(lambda: state.slots(principal) == (1, 1, 1))
        state.client.function_flush()
        acquired.cancel()
        await until(lambda: state.slots(principal) == (0, 0, 0))
        assert link.counts.undos == 1
    assert acquired.cancelled()


async def test_undo_that_found_no_scripts_before_the_connection_broke_is_sent_on_the_next_one(
    proxy: TCPProxy, redis: Redis, state: PublishedState
):
    principal = state.principal()
    async with running_link(through(proxy, redis), timeout_s=PATIENT_S) as link:
        proxy.swallow_replies = True
        acquired = asyncio.create_task(leases_of(link).acquire(principal, new_id(), DEMAND, CRASHED))
        await until(lambda: state.slots(principal) == (1, 1, 1))
        state.client.function_flush()
        state.client.config_resetstat()
        acquired.cancel()
        await until(lambda: "cmdstat_fcall" in state.client.info("commandstats"))
        assert state.slots(principal) == (1, 1, 1)
        proxy.swallow_replies = False
        proxy.reset()
        await until(lambda: state.slots(principal) == (0, 0, 0))
    assert acquired.cancelled()


async def test_a_user_that_may_not_load_the_scripts_is_denied_and_it_is_told_why(
    redis: Redis, state: PublishedState, capsys: pytest.CaptureFixture[str]
):
    principal = state.principal()
    state.client.function_flush()
    state.client.execute_command("ACL", "SETUSER", "limited", "on", ">pw", "~*", "+@all", "-function")
    async with running_link(f"redis://limited:pw@127.0.0.1:{redis.port}/0") as link:
        with pytest.raises(CannotCheckError):
            await leases_of(link).acquire(principal, new_id(), DEMAND, CRASHED)
    state.client.execute_command("ACL", "DELUSER", "limited")
    assert "NoPermissionError" in capsys.readouterr().out
    assert state.slots(principal) == (0, 0, 0)
