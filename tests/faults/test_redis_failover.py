"""A6.3: Redis fails over to a replica that lags: nobody is admitted before it is rebuilt, and nothing spent is lost."""

from __future__ import annotations

import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis as redis_client

from deploy.local.redis import Redis
from deploy.local.state import Secrets
from tests.e2e.accounts import assert_invariants, book, budget_of, scope_ids
from tests.e2e.crowd import Answer, ask_all, chat
from tests.e2e.harness import eventually
from tests.fakes.tcp_proxy import TCPProxy, proxy_in_a_thread
from tests.faults.fleet import Fleet

REBUILT_WITHIN_S = 90.0


class Pair:
    """The Redis of a fleet with a replica, and the way between them."""

    def __init__(self, fleet: Fleet, server: Redis, way: TCPProxy) -> None:
        self._fleet = fleet
        self._primary = fleet.gateway.redis
        self._primary_url: str = fleet.gateway.description["redis_url"]
        self.server = server
        self.way = way
        self.replica: Any = redis_client.Redis.from_url(server.url, decode_responses=True)

    def follow(self) -> None:
        """Both have the same from now on. A primary with a replica must ask for it before it takes a write."""
        self.replica.replicaof("127.0.0.1", self.way.port)
        eventually(lambda: self.replica.info()["master_link_status"] == "up", timeout_s=60, what="the replica")
        self._primary.config_set("min-replicas-to-write", 1)
        eventually(self._is_even, timeout_s=60, what="the same data")

    def fail_over(self) -> None:
        """The primary dies and the replica, as it is, takes its place."""
        self._fleet.signal("redis", signal.SIGKILL)
        self.replica.replicaof("NO", "ONE")
        self._take_over(self.replica, self.server.url)

    def go_back(self) -> None:
        """The old primary comes back with its old data, and has its place again."""
        gateway = self._fleet.gateway
        if gateway.redis is self.replica:
            self.server.kill()
            gateway.start_again("redis.cmd")
            self._take_over(self._primary, self._primary_url)
        self.replica.close()
        eventually(self._answers, timeout_s=60, what="the old primary")
        self._primary.config_set("min-replicas-to-write", 0)

    def used(self, tenant: str) -> int:
        """Tokens that the replica has for a tenant in all."""
        description = self._fleet.gateway.description
        description["redis_url"] = self.server.url
        try:
            return budget_of(self._fleet.gateway, "tenant", tenant).used
        finally:
            description["redis_url"] = self._primary_url

    def _take_over(self, client: Any, url: str) -> None:
        """From now on this server is the one of everybody, and of the test."""
        gateway = self._fleet.gateway
        gateway.redis, gateway.description["redis_url"] = client, url
        self._fleet.proxies["redis"].turn_to(urlsplit(url).port or 0)

    def _answers(self) -> bool:
        try:
            return bool(self._primary.ping())
        except redis_client.RedisError:
            return False

    def _is_even(self) -> bool:
        primary, replica = self._primary.info(), self.replica.info()
        return primary["connected_slaves"] == 1 and primary["master_repl_offset"] == replica["master_repl_offset"]


@pytest.fixture
def pair(whole: Fleet, tmp_path: Path) -> Iterator[Pair]:
    secrets = Secrets(whole.gateway.state / "secrets.json")
    settings = {"masterauth": secrets.get("redis"), "repl-diskless-sync-delay": "0"}
    port = urlsplit(whole.gateway.description["redis_url"]).port or 0
    with Redis(tmp_path / "replica", secrets=secrets, settings=settings) as server, proxy_in_a_thread(port) as way:
        pair = Pair(whole, server, way)
        try:
            yield pair
        finally:
            pair.go_back()


def ask(whole: Fleet, key: str, count: int) -> list[Answer]:
    return ask_all(whole.gateway.urls, key, [chat(num_predict=16)] * count)


def test_a_replica_that_lags_is_denied_until_it_is_rebuilt_and_nothing_spent_is_lost(whole: Fleet, pair: Pair):
    tenant = f"failover-{uuid.uuid4().hex[:8]}"
    whole.gateway.tenant(tenant, budget_total=1_000_000)
    key = whole.gateway.key(tenant)
    pair.follow()
    eventually(whole.is_ready, timeout_s=60, what="readiness with a replica")
    answers = ask(whole, key, 6)
    pair.way.hold_requests = pair.way.hold_replies = True
    # This never reaches the replica; the ledger has some of it, the workers remember the rest.
    answers += ask(whole, key, 10)
    assert {answer.status for answer in answers} == {200}
    scope = scope_ids(whole.gateway, tenant, key)["tenant"]
    assert 0 < pair.used(scope) < budget_of(whole.gateway, "tenant", scope).used
    pair.fail_over()
    denied = ask(whole, key, 4)
    assert {answer.status for answer in denied} == {503}
    deadline_s = time.monotonic() + REBUILT_WITHIN_S
    served = ask(whole, key, 4)
    while any(answer.status != 200 for answer in served):
        assert time.monotonic() < deadline_s, "nobody rebuilds the replica"
        denied += served
        served = ask(whole, key, 4)
    assert {answer.status for answer in denied} <= {200, 503}
    ledger = {account: tokens for account, tokens in book(whole.gateway).derived.items() if account.id == scope}
    assert all(budget_of(whole.gateway, "tenant", scope, one.period).used >= each for one, each in ledger.items())
    assert_invariants(whole.gateway, whole.mocks, [*answers, *denied, *served], may_fail={503})
    # Back to a server whose data is older than the ledger, once more.
    pair.go_back()
    eventually(whole.is_ready, timeout_s=REBUILT_WITHIN_S, what="readiness on the old primary")
    assert_invariants(whole.gateway, whole.mocks, ask(whole, key, 4), may_fail={503})
