"""The scripts of one principal, called on a real server without a link in between."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec

from dataplane.quota.calls import LEASE_TTL_MS, PrincipalCalls
from dataplane.quota.leases import read_reply
from dataplane.quota.scripts import RENEW, Call
from dataplane.values import Demand, Lease, Principal
from shared import keyspace, layout, records
from shared.keyspace import KeyId, LeaseId, TenantId
from shared.records import UsageEvent
from tests.fakes import counted
from tests.fakes.published_state import PublishedState

CAP = 5
DEMAND = Demand(prompt_bound=100, prompt_estimate=25, num_predict=50)
CRASHED = b'{"outcome":"crashed"}'
_EVENTS = records.decoder(UsageEvent)


def event(lease_id: str, **fields: Any) -> UsageEvent:
    """A usage event of a settled lease: 40 tokens of prompt, 30 of output."""
    given = {
        "event_id": lease_id,
        "request_id": lease_id,
        "tenant_id": TenantId("t"),
        "key_id": KeyId("k"),
        "day": "20261121",
        "created_at_ms": 1,
        "dialect": "ollama",
        "endpoint": "/api/chat",
        "outcome": "completed",
        "status": 200,
        "prompt_tokens": 40,
        "completion_tokens": 30,
    }
    return msgspec.convert({**given, **fields}, UsageEvent)


def events_of(state: PublishedState, principal: Principal) -> list[UsageEvent]:
    """The events that wait in the principal's shard."""
    return [records.decode(_EVENTS, raw) for raw in state.usage(principal)]


def run(state: PublishedState, call: Call) -> Any:
    """Sends a packed call as it is and reads its reply."""
    connection = state.client.connection_pool.get_connection()
    try:
        connection.send_packed_command([call.packed])
        return connection.read_response()
    finally:
        state.client.connection_pool.release(connection)


def incarnation(state: PublishedState) -> bytes:
    info = state.client.info()
    return layout.incarnation(info["run_id"], info["master_replid"]).encode()


def read(reply: bytes) -> list[Any]:
    """An admission's reply in one list; a decision that comes without numbers alone."""
    decision, numbers = read_reply(reply)
    return [decision] if decision == reply else [decision, *numbers]


def decision_of(reply: bytes) -> bytes:
    """The first word of a reply."""
    return reply.partition(b" ")[0]


class Caller:
    """A principal's calls against one server."""

    def __init__(self, state: PublishedState, principal: Principal, *, cap: int = CAP) -> None:
        self.state = state
        self.principal = principal
        self.calls = PrincipalCalls(principal, cap)
        self.incarnation = incarnation(state)

    def acquire(self, lease_id: str | None = None, demand: Demand = DEMAND) -> list[Any]:
        """Decision, retry after ms, whether waiting is in vain, sums and idle times of the windows, periods, grant."""
        call = self.calls.acquire(self.incarnation, LeaseId(lease_id or str(uuid.uuid4())), demand, CRASHED)
        return read(run(self.state, call))

    def lease(self, lease_id: str) -> Lease:
        """What a worker knows of a lease; of one that nobody knows, something."""
        found = counted.lease(self.state.client, self.principal.shard, lease_id)
        return Lease(
            lease_id=LeaseId(lease_id),
            shard=self.principal.shard,
            day="20261121" if found is None else found.day,
            month="202611" if found is None else found.month,
            prompt_bound=100 if found is None else found.prompt_bound,
            num_predict=50 if found is None else found.granted,
            taken_s=0.0,
        )

    def check(self) -> bytes:
        return bytes(run(self.state, self.calls.check(self.incarnation)))

    def settle(self, lease_id: str, event: bytes = b"{}", tokens: int = 70) -> bytes:
        call = self.calls.settle(self.incarnation, self.lease(lease_id), event, tokens)
        return decision_of(run(self.state, call))

    def correct(self, lease_id: str, tokens: int, event: bytes = b"{}") -> bytes:
        call = self.calls.correct(self.incarnation, self.lease(lease_id), event, tokens)
        return decision_of(run(self.state, call))

    def abandon(self, lease_id: str, *, is_known_server: bool = True) -> bytes:
        incarnation = self.incarnation if is_known_server else b"unknown"
        return bytes(run(self.state, self.calls.abandon(incarnation, LeaseId(lease_id))))

    def append(self, event: bytes = b"{}") -> bytes:
        return decision_of(run(self.state, self.calls.append(self.incarnation, event)))

    def renew(self, *lease_ids: str) -> list[bytes]:
        shard = self.principal.shard
        key = keyspace.key_scope(self.principal.key_id)
        tenant = keyspace.tenant_scope(self.principal.tenant_id)
        keys = [keyspace.fence(shard), keyspace.live(shard), keyspace.expiry(shard)]
        arguments: list[str | bytes | int] = [self.incarnation, LEASE_TTL_MS, 1000]
        for lease_id in lease_ids:
            keys += [
                keyspace.leases(shard, key),
                keyspace.leases(shard, tenant),
                keyspace.lease(shard, LeaseId(lease_id)),
            ]
            arguments += [lease_id, key, tenant]
        return list(run(self.state, RENEW.call(keys, arguments)))

    def expire(self, lease_id: str) -> None:
        """Makes a lease look as if its time were over."""
        for name in (*self.slot_names(self.principal), keyspace.expiry(self.principal.shard)):
            self.state.client.zadd(name, {lease_id: 1})

    @staticmethod
    def slot_names(principal: Principal) -> tuple[str, str]:
        """Where the leases of the key and of the tenant are."""
        return (
            keyspace.leases(principal.shard, keyspace.key_scope(principal.key_id)),
            keyspace.leases(principal.shard, keyspace.tenant_scope(principal.tenant_id)),
        )
