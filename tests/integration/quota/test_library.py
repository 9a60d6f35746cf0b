"""The library of functions, which is not the worker's to load: servers that have forgotten it, or know another one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from dataplane.errors import CannotCheckError
from dataplane.quota.calls import PrincipalCalls
from dataplane.quota.link import READINESS_CHECK, Link
from dataplane.quota.scripts import Argument, Script
from dataplane.quota.server import NOT_LOADED
from deploy.local.redis import DATAPLANE, Redis
from shared import keyspace
from shared.lifecycle import Readiness
from shared.quota.library import LIBRARY, Library
from tests.fakes.published_state import PublishedState
from tests.fakes.redis_link import PATIENT_S, running_link
from tests.fakes.tcp_proxy import TCPProxy
from tests.fakes.waiting import until
from tests.integration.quota.caller import CRASHED, DEMAND, run
from tests.integration.quota.links import leases_of, new_id, through

pytestmark = pytest.mark.redis
ANOTHER = Library(f"{LIBRARY.text}\n-- Of another release.\n")


@pytest.fixture
def readiness() -> Readiness:
    return Readiness((READINESS_CHECK,))


@pytest.fixture
async def worker(redis: Redis, state: PublishedState, readiness: Readiness) -> AsyncIterator[Link]:
    """A worker's link, of the data plane's user."""
    async with running_link(redis.url_of(DATAPLANE), readiness=readiness) as link:
        yield link


@pytest.fixture
def others(state: PublishedState) -> Iterator[None]:
    """The server has the library of another release and no other."""
    state.client.function_flush()
    state.load(ANOTHER)
    yield
    state.client.function_delete(ANOTHER.name)


async def test_forgotten_functions_deny_and_the_worker_is_not_ready_until_they_are_loaded(
    worker: Link, readiness: Readiness, state: PublishedState, capsys: pytest.CaptureFixture[str]
):
    leases, principal = leases_of(worker), state.principal()
    state.client.function_flush()
    with pytest.raises(CannotCheckError, match="UnknownFunction"):
        await leases.acquire(principal, new_id(), DEMAND, CRASHED)
    await until(lambda: not readiness.ready)
    with pytest.raises(CannotCheckError, match="no trusted connection"):
        await leases.acquire(principal, new_id(), DEMAND, CRASHED)
    assert state.slots(principal) == (0, 0, 0)
    assert state.libraries() == set()
    assert NOT_LOADED in capsys.readouterr().out
    state.load()
    await until(lambda: readiness.ready)
    await leases.acquire(principal, new_id(), DEMAND, CRASHED)
    assert state.slots(principal) == (1, 1, 1)


async def test_a_worker_that_is_newer_than_every_control_plane_says_so_and_is_never_ready(
    others: None, redis: Redis, readiness: Readiness, state: PublishedState, capsys: pytest.CaptureFixture[str]
):
    async with running_link(redis.url_of(DATAPLANE), trusted=False, readiness=readiness) as link:
        said = ""
        async with asyncio.timeout(PATIENT_S):
            while NOT_LOADED not in said:
                await asyncio.sleep(0.01)
                said += capsys.readouterr().out
        assert (link.is_trusted, readiness.ready) == (False, False)
        state.load()
        await until(lambda: readiness.ready)
    # Said once, although it has looked ten times a second.
    assert said.count(NOT_LOADED) + capsys.readouterr().out.count(NOT_LOADED) == 1


async def test_two_versions_are_used_beside_each_other(worker: Link, state: PublishedState):
    principal = state.principal()
    calls = PrincipalCalls(principal, 1000)
    keys = [name(principal.shard) for name in (keyspace.fence, keyspace.live, keyspace.usage, keyspace.deny)]
    state.load(ANOTHER)
    for _ in range(2):
        of_nobody: list[Argument] = [worker.incarnation(principal.shard), "k:nobody", "t:nobody", ""]
        assert run(state, Script("check", ANOTHER).call(keys, of_nobody)) == b"missing"
        assert await worker.call(principal.shard, calls.check(worker.incarnation(principal.shard))) == b"allowed"
    assert state.libraries() >= {ANOTHER.name, LIBRARY.name}
    state.client.function_delete(ANOTHER.name)
    assert await worker.call(principal.shard, calls.check(worker.incarnation(principal.shard))) == b"allowed"


async def test_undo_that_finds_no_functions_is_sent_again_when_they_are_there(
    proxy: TCPProxy, redis: Redis, state: PublishedState, capsys: pytest.CaptureFixture[str]
):
    principal = state.principal()
    async with running_link(through(proxy, redis), timeout_s=PATIENT_S) as link:
        proxy.delay = lambda: 0.03
        acquired = asyncio.create_task(leases_of(link).acquire(principal, new_id(), DEMAND, CRASHED))
        await until(lambda: state.slots(principal) == (1, 1, 1))
        state.client.function_flush()
        acquired.cancel()
        await until(lambda: not link.is_trusted)
        assert state.slots(principal) == (1, 1, 1)
        state.load()
        await until(lambda: state.slots(principal) == (0, 0, 0))
        assert link.counts.undos == 2
    assert acquired.cancelled()
    assert "UnknownFunction" in capsys.readouterr().out


async def test_undo_that_found_no_functions_before_the_connection_broke_is_sent_on_the_next_one(
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
        state.load()
        proxy.swallow_replies = False
        proxy.reset()
        await until(lambda: state.slots(principal) == (0, 0, 0))
    assert acquired.cancelled()


async def test_a_user_that_may_not_call_functions_is_not_trusted_and_it_is_told_why(
    redis: Redis, state: PublishedState, capsys: pytest.CaptureFixture[str]
):
    state.client.execute_command("ACL", "SETUSER", "limited", "on", ">pw", "~*", "+@all", "-fcall")
    said = ""
    async with running_link(f"redis://limited:pw@127.0.0.1:{redis.port}/0", trusted=False) as link:
        async with asyncio.timeout(PATIENT_S):
            while "it refuses to be examined: NoPermissionError" not in said:
                await asyncio.sleep(0.01)
                said += capsys.readouterr().out
        with pytest.raises(CannotCheckError):
            await leases_of(link).acquire(state.principal(), new_id(), DEMAND, CRASHED)
    state.client.execute_command("ACL", "DELUSER", "limited")
