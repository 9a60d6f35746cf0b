"""The same scripts on a Redis Cluster of three nodes: each call stays in one slot, shards live on different nodes."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import redis as redis_client

from controlplane.publish.scripts import source as reap_source
from dataplane.quota.scripts import ANNOUNCE, Argument
from dataplane.values import Principal
from deploy.local.ports import HOST, PortBook
from deploy.local.redis import Redis
from deploy.local.state import Secrets
from shared import keyspace, layout, records
from shared.keyspace import SHARDS, LeaseId, Shard, TenantId, shard_of
from tests.fakes.published_state import PublishedState
from tests.integration.quota.caller import Caller, event, events_of, run

pytestmark = [pytest.mark.redis, pytest.mark.timeout(300)]

SLOTS = 16_384
NODES = 3
JOINED_WITHIN_S = 30.0


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Redis]]:
    """Three primaries that share the slots."""
    folder = tmp_path_factory.mktemp("cluster")
    secrets = Secrets(folder / "secrets.json")
    # Left alone, the nodes talk to each other 10 000 ports further up, where outgoing connections have theirs.
    ports = PortBook(folder / "ports.json")
    buses = [ports.assign(f"bus-{number}") for number in range(NODES)]
    with ExitStack() as running:
        servers = [
            running.enter_context(
                Redis(
                    folder / f"node-{number}",
                    secrets=secrets,
                    port=ports.assign(f"node-{number}"),
                    settings={"cluster-enabled": "yes", "cluster-port": str(bus)},
                )
            )
            for number, bus in enumerate(buses)
        ]
        clients = [running.enter_context(redis_client.Redis.from_url(server.url)) for server in servers]
        for number, client in enumerate(clients):
            client.execute_command("CLUSTER ADDSLOTSRANGE", number * SLOTS // NODES, (number + 1) * SLOTS // NODES - 1)
            client.execute_command("CLUSTER MEET", HOST, servers[0].port, buses[0])
        deadline_s = time.monotonic() + JOINED_WITHIN_S
        while not all(_has_joined(client) for client in clients):
            assert time.monotonic() < deadline_s, "the nodes did not find each other"
            time.sleep(0.1)
        yield servers


def _has_joined(client: redis_client.Redis) -> bool:
    info = client.execute_command("CLUSTER INFO")
    return info["cluster_state"] == "ok" and info["cluster_known_nodes"] == str(NODES)


@pytest.fixture
def states(nodes: list[Redis]) -> Iterator[dict[Shard, PublishedState]]:
    """For each shard the node that has its slot, stamped."""
    made = [PublishedState(node.url) for node in nodes]
    by_shard = {}
    for shard in SHARDS:
        slot = made[0].client.execute_command("CLUSTER KEYSLOT", keyspace.fence(shard))
        state = by_shard[shard] = made[slot * NODES // SLOTS]
        state.load()
        info = state.client.info()
        state.client.set(keyspace.fence(shard), layout.incarnation(info["run_id"], info["master_replid"]) + "1")
    yield by_shard
    for state in made:
        state.client.flushall()
        state.close()


def principal_in(shard: Shard, state: PublishedState) -> Principal:
    tenants = (TenantId(str(uuid.uuid4())) for _ in itertools.count())
    return state.principal(tenant_id=next(one for one in tenants if shard_of(one) == shard))


def test_shards_live_on_different_nodes(states: dict[Shard, PublishedState]):
    assert len({state.url for state in states.values()}) == NODES


@pytest.mark.parametrize("shard", SHARDS)
def test_every_script_stays_in_the_slot_of_its_shard(states: dict[Shard, PublishedState], shard: Shard):
    state = states[shard]
    caller = Caller(state, principal_in(shard, state), cap=100)
    assert caller.check() == b"allowed"
    assert [caller.acquire(lease_id)[0] for lease_id in ("one", "two", "dead")] == [b"admitted"] * 3
    assert caller.renew("one", "two", "dead") == [b"renewed"]
    assert caller.settle("one") == b"settled"
    assert caller.abandon("two") == b"abandoned"
    assert caller.append() == b"appended"
    assert reaped(caller, "dead") == b"reaped"
    assert caller.settle("dead") == b"reaped"
    assert caller.correct("dead", -80) == b"corrected"
    assert set(state.budgets(caller.principal).values()) == {(140, 0)}
    assert state.slots(caller.principal) == (0, 0, 0)


@pytest.mark.parametrize("shard", SHARDS[:4])
def test_rebuilds_are_told_in_the_slot_of_their_shard(states: dict[Shard, PublishedState], shard: Shard):
    state = states[shard]
    caller = Caller(state, principal_in(shard, state))
    state.client.delete(keyspace.fence(shard))
    state.client.set(keyspace.rebuild_token(shard), "token")
    scopes = caller.slot_names(caller.principal)
    keys = [
        keyspace.rebuild_token(shard),
        keyspace.fence(shard),
        keyspace.usage(shard),
        keyspace.expiry(shard),
        keyspace.announced(shard),
        keyspace.lease(shard, LeaseId("over")),
        keyspace.lease(shard, LeaseId("running")),
        *scopes,
    ]
    own, tenant = keyspace.key_scope(caller.principal.key_id), keyspace.tenant_scope(caller.principal.tenant_id)
    over = records.encode(event("over"))
    arguments: list[Argument] = ["token", caller.incarnation, "worker", 30_000, 1000, 1000, 1, over, 0]
    arguments += ["running", own, tenant, "20261121", "202611", 150, 100, 50, b"{}"]
    assert run(state, ANNOUNCE.call(keys, arguments)) == b"announced"
    assert [one.event_id for one in events_of(state, caller.principal)] == ["over"]
    assert state.slots(caller.principal) == (1, 1, 1)


def reaped(caller: Caller, lease_id: str) -> bytes:
    """What the control plane's script says to a lease that is over."""
    caller.expire(lease_id)
    shard = caller.principal.shard
    scopes = (keyspace.key_scope(caller.principal.key_id), keyspace.tenant_scope(caller.principal.tenant_id))
    keys = [
        keyspace.fence(shard),
        keyspace.usage(shard),
        keyspace.expiry(shard),
        keyspace.lease(shard, LeaseId(lease_id)),
        *(keyspace.leases(shard, scope) for scope in scopes),
        *(keyspace.counters(shard, scope) for scope in scopes),
    ]
    source = reap_source("reap", "counters", "leases")
    arguments = (caller.incarnation, lease_id, records.encode(event(lease_id)), 1000, 1000)
    return bytes(caller.state.client.eval(source, len(keys), *keys, *arguments))
