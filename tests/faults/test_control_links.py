"""A7: the links of control planes: what is revoked while they are broken, and who finds another way."""

from __future__ import annotations

import uuid

import grpc
import pytest

from neuronetz.admin.v1 import key_pb2, key_pb2_grpc, publication_pb2
from shared import keyspace
from tests.e2e.accounts import assert_invariants
from tests.e2e.crowd import ask_all, chat
from tests.e2e.harness import eventually
from tests.faults.fleet import CONTROL, Fleet

RECONNECTED_WITHIN_S = 30.0
# The deadline of a command, until a connection that says nothing is given up, and all that comes after it.
REPLACED_WITHIN_S = 120.0


@pytest.fixture
def key(whole: Fleet) -> str:
    name = f"control-{uuid.uuid4().hex[:8]}"
    whole.gateway.tenant(name)
    key = whole.gateway.key(name)
    assert statuses(whole, key) == {200}
    return key


def statuses(whole: Fleet, key: str) -> set[int]:
    return {answer.status for answer in ask_all(whole.gateway.urls, key, [chat(num_predict=16)] * 4)}


def revoke(whole: Fleet, key: str, control: int) -> int:
    address = whole.gateway.description["admin_addresses"][control]
    credentials = (("authorization", f"Bearer {whole.gateway.description['admin_token']}"),)
    with grpc.insecure_channel(address) as channel:
        request = key_pb2.RevokeKeyRequest(prefix=key[:12])
        answer = key_pb2_grpc.KeyServiceStub(channel).RevokeKey(request, metadata=credentials, timeout=30)
    publication: int = answer.publication
    return publication


def test_a_worker_leaves_a_control_plane_that_says_nothing_for_the_other_one(whole: Fleet, key: str):
    eventually(lambda: watched_by(whole, "dataplane-1"), timeout_s=30, what="a worker that watches")
    silent = watched_by(whole, "dataplane-1")[0]
    other = next(name for name in whole.planes if name.startswith(CONTROL) and name != silent)
    link = whole.link("dataplane-1", silent)
    before = whole.link("dataplane-1", other).connections
    link.hold_requests = link.hold_replies = True
    eventually(
        lambda: whole.link("dataplane-1", other).connections > before, timeout_s=RECONNECTED_WITHIN_S, what="another"
    )
    # Meanwhile what is revoked is refused, for every admission asks Redis.
    assert revoke(whole, key, 0) == publication_pb2.PUBLICATION_APPLIED
    assert statuses(whole, key) == {401}
    link.heal()
    assert_invariants(whole.gateway, whole.mocks)


def watched_by(whole: Fleet, plane: str) -> list[str]:
    """The control planes to which a worker has an open connection."""
    controls = [name for name in whole.planes if name.startswith(CONTROL)]
    return [name for name in controls if whole.link(plane, name).is_open]


def test_a_control_plane_that_cannot_reach_redis_says_pending_and_nobody_is_admitted(whole: Fleet, key: str):
    for control in (name for name in whole.planes if name.startswith(CONTROL)):
        link = whole.link(control, "redis")
        link.hold_requests = link.hold_replies = True
    assert revoke(whole, key, 0) == publication_pb2.PUBLICATION_PENDING
    # The push goes out all the same; where it has not arrived yet, a request may still be admitted.
    eventually(lambda: statuses(whole, key) == {401}, timeout_s=RECONNECTED_WITHIN_S, what="the pushed refusal")
    for control in (name for name in whole.planes if name.startswith(CONTROL)):
        whole.link(control, "redis").heal()
    prefix = keyspace.key_record(key[:12])
    eventually(lambda: whole.gateway.redis.exists(prefix), what="the record")
    assert statuses(whole, key) == {401}
    assert_invariants(whole.gateway, whole.mocks)


def test_connections_to_postgres_that_went_dead_are_replaced_and_the_outbox_goes_on(whole: Fleet, key: str):
    # The listener hears nothing any more and nobody is told; new connections are well.
    for link in whole.links_to("postgres"):
        link.freeze()
    whole.gateway.rows(
        "INSERT INTO gateway.revocations (key_id, reason) SELECT id, 'lost' FROM gateway.api_keys WHERE prefix = $1",
        key[:12],
    )
    eventually(lambda: statuses(whole, key) == {401}, timeout_s=REPLACED_WITHIN_S, what="the revocation")
    for link in whole.links_to("postgres"):
        link.heal()
    assert_invariants(whole.gateway, whole.mocks)
