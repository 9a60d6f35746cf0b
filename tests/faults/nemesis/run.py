"""One run: a fleet under load while a plan of faults is played, until its books agree; all goes to the history."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Iterator, Sequence

import httpx
import psutil
import redis as redis_client

from shared import keyspace
from shared.keyspace import TenantId
from tests.e2e.accounts import assert_invariants, request_id_of, scope_ids
from tests.e2e.crowd import ask_all, chat
from tests.e2e.harness import body_of, eventually
from tests.faults.fleet import Fleet
from tests.faults.nemesis.history import History
from tests.faults.nemesis.load import MODELS, Load, Tenant, tenants
from tests.faults.nemesis.plan import Fault, plan
from tests.faults.nemesis.strike import strike

SAMPLE_S = 1.0
AFTERMATH_S = 3.0
SERVES_AGAIN_WITHIN_S = 60.0
# Leases of killed workers live for half a minute, and what they held is charged after that.
AGREES_WITHIN_S = 120.0
_RECORD_DELAY_MS = 15
# Leases that have ended count no more, also before anybody has taken them out.
_HELD = """
local now = redis.call('TIME')
return redis.call('ZCOUNT', KEYS[1], '(' .. (now[1] * 1000 + math.floor(now[2] / 1000)), '+inf')
"""


def schedule(fleet: Fleet, seed: int, duration_s: float) -> list[Fault]:
    """The plan for this fleet."""
    return plan(seed, duration_s, list(fleet.links), [mock.name for mock in fleet.mocks])


def run(fleet: Fleet, history: History, *, seed: int, duration_s: float) -> list[Fault]:
    """Faults and load for so many seconds; then all is healed, serves again, and the books agree.

    Raises AssertionError when it does not come to that. The rest is for ``judge``.
    """
    faults = schedule(fleet, seed, duration_s)
    # Two names that have nothing in common: what clients say must be found nowhere, whose tenants they are may be.
    marker, suffix = f"said{uuid.uuid4().hex[:8]}", uuid.uuid4().hex[:8]
    history.add("began", seed=seed, duration_s=duration_s, marker=marker)
    crowd = _tenants(fleet, suffix, history)
    for mock in fleet.mocks:
        mock.settings(record_delay_ms=_RECORD_DELAY_MS)
    with _sampled(fleet, crowd, history), Load(fleet.gateway, crowd, history, seed=seed, marker=marker):
        _play(fleet, faults, history)
    fleet.heal()
    history.add("healed all")
    eventually(lambda: _serves(fleet, crowd[0]), timeout_s=SERVES_AGAIN_WITHIN_S, what="service on every data plane")
    history.add("serves again")
    assert_invariants(
        fleet.gateway, fleet.mocks, canaries=[marker], attempts=len(fleet.mocks), timeout_s=AGREES_WITHIN_S
    )
    history.add("agrees")
    _write_books(fleet, suffix, history)
    return faults


def _play(fleet: Fleet, faults: Sequence[Fault], history: History) -> None:
    eventually(lambda: any(mock.requests() for mock in fleet.mocks), what="traffic")
    strike(fleet, faults, history, pause=time.sleep)
    time.sleep(AFTERMATH_S)


def _tenants(fleet: Fleet, suffix: str, history: History) -> list[Tenant]:
    crowd = tenants()
    for tenant in crowd:
        tenant.name = f"{tenant.name}-{suffix}"
        fleet.gateway.tenant(tenant.name, models=None, prompt_log_days=None, **tenant.limits)
        tenant.api_key = fleet.gateway.key(tenant.name)
        history.add("tenant", tenant=tenant.name, **tenant.limits)
    fleet.gateway.wait_for_models(crowd[0].api_key, *MODELS)
    return crowd


def _serves(fleet: Fleet, tenant: Tenant) -> bool:
    answers = ask_all(fleet.gateway.urls, tenant.api_key, [chat(num_predict=16)] * 2 * len(fleet.gateway.urls))
    return {answer.status for answer in answers} == {200}


@contextlib.contextmanager
def _sampled(fleet: Fleet, crowd: Sequence[Tenant], history: History) -> Iterator[None]:
    """Memory of the planes, and slots held by each tenant that may have few, once a second."""
    stopping = threading.Event()
    scopes = {
        tenant.name: TenantId(scope_ids(fleet.gateway, tenant.name, tenant.api_key)["tenant"])
        for tenant in crowd
        if "concurrent" in tenant.limits
    }
    address = fleet.gateway.description["redis_url"]
    direct = redis_client.Redis.from_url(address, socket_timeout=SAMPLE_S, decode_responses=True)

    def sample() -> None:
        while not stopping.wait(SAMPLE_S):
            for mock in fleet.mocks:
                # A mock that stands still is asked again.
                with contextlib.suppress(httpx.HTTPError):
                    mock.collect()
            for plane, pid in fleet.gateway.serving().items():
                with contextlib.suppress(psutil.Error):
                    history.add("memory", plane=plane, pid=pid, rss_bytes=psutil.Process(pid).memory_info().rss)
            for name, tenant_id in scopes.items():
                with contextlib.suppress(redis_client.RedisError):
                    key = keyspace.leases(keyspace.shard_of(tenant_id), keyspace.tenant_scope(tenant_id))
                    history.add("slots", tenant=name, held=direct.eval(_HELD, 1, key))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()
        direct.close()


def _write_books(fleet: Fleet, suffix: str, history: History) -> None:
    for mock in fleet.mocks:
        for request in mock.requests():
            body = body_of(request)
            history.add(
                "upstream", mock=mock.name, request_id=request_id_of(request),
                nonce=body["messages"][-1]["content"], arrived_at_s=request["arrived_at_s"],
            )  # fmt: skip
    rows = fleet.gateway.rows(
        "SELECT a.request_id, a.outcome, a.total_tokens, a.provenance, t.name AS tenant FROM gateway.audit_log a "
        "JOIN gateway.tenants t ON t.id = a.tenant_id WHERE t.name LIKE $1",
        f"%-{suffix}",
    )
    for row in rows:
        history.add("row", **dict(row))
