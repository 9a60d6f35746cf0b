"""The admission scripts against the model in memory: any order of calls, repeated calls, a clock that jumps."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from controlplane.publish.scripts import source
from dataplane.quota import scripts
from dataplane.quota.calls import LEASE_TTL_MS, PrincipalCalls
from dataplane.quota.scripts import Argument, Script
from dataplane.values import Demand, Lease, Limits, Principal
from shared import keyspace, records
from shared.keyspace import LeaseId
from tests.fakes import counted
from tests.fakes.published_state import PublishedState
from tests.integration.quota.caller import CRASHED, decision_of, event, incarnation, read, run
from tests.integration.quota.clock import clocked, on_test_clock, set_clock
from tests.integration.quota.model import TENANT, Held, Model, Refused

pytestmark = pytest.mark.redis

_REAP = source("reap", "counters", "leases")

KEYS = ("key 1", "key 2")
# Which of the latest leases a call is about, counted from the end; one that does not exist yet for the highest.
LATEST = st.integers(0, 8)
# 23:59:30 of the last day of a leap February, of a year, and of nothing special.
STARTS_MS = (1_835_481_570_000, 1_798_761_570_000, 1_795_305_570_000)
JUMPS_MS = (1, 400, 999, 1_000, 5_000, 29_999, 30_000, 59_999, 60_000, 61_000, 3_600_000, 86_400_000, -700, -45_000)


NO_LIMITS = Limits(rpm=None, tpm=None, concurrent=None)
LIMITS = st.one_of(
    st.just(NO_LIMITS),
    st.builds(Limits, rpm=st.sampled_from([3, 5, 128]), tpm=st.none(), concurrent=st.none()),
    st.builds(Limits, rpm=st.none(), tpm=st.sampled_from([150, 400]), concurrent=st.none()),
    st.builds(Limits, rpm=st.none(), tpm=st.none(), concurrent=st.sampled_from([0, 1, 3])),
    st.builds(
        Limits,
        rpm=st.none(),
        tpm=st.none(),
        concurrent=st.none(),
        budget_day=st.sampled_from([None, 350, 1000]),
        budget_month=st.sampled_from([None, 600, 1200]),
        budget_total=st.sampled_from([None, 500, 2**53 - 1]),
    ),
    st.builds(
        Limits,
        rpm=st.sampled_from([None, 0, 4, 129]),
        tpm=st.sampled_from([None, 700]),
        concurrent=st.sampled_from([None, 4]),
        budget_day=st.sampled_from([None, 800]),
    ),
)


def demands() -> st.SearchStrategy[Demand]:
    return st.builds(
        Demand,
        prompt_bound=st.integers(0, 120),
        prompt_estimate=st.integers(0, 30),
        num_predict=st.sampled_from([0, 1, 16, 50, 100]),
        output_factor=st.sampled_from([1, 2]),
    )


class QuotaMachine(RuleBasedStateMachine):
    """Two keys of one tenant."""

    published: PublishedState
    renew_script: Script

    @initialize(key=LIMITS, tenant=LIMITS, start_ms=st.sampled_from(STARTS_MS))
    def begin(self, key: Limits, tenant: Limits, start_ms: int) -> None:
        state = self.published
        state.client.flushall()
        state.stamp()
        one = state.principal(key_limits=key, tenant_limits=tenant)
        two = state.principal(key_limits=key, tenant_limits=tenant, tenant_id=one.tenant_id)
        self.principals = dict(zip(KEYS, (one, two), strict=True))
        self.calls = {name: PrincipalCalls(principal, 10**6) for name, principal in self.principals.items()}
        self.incarnation = incarnation(state)
        self.shard = one.shard
        self.model = Model(limits={KEYS[0]: key, KEYS[1]: key, TENANT: tenant}, now_ms=start_ms)
        self.leases: list[str] = []
        self._set_clock()

    # Calls, each as often as it may arrive

    @rule(key=st.sampled_from(KEYS), demand=demands(), times=st.sampled_from([1, 1, 1, 3]))
    def acquire(self, key: str, demand: Demand, times: int) -> None:
        self.leases.append(f"lease-{len(self.leases)}")
        self._acquire(key, self.leases[-1], demand, times)

    @rule(key=st.sampled_from(KEYS), demand=demands(), count=st.integers(3, 45))
    def acquire_many(self, key: str, demand: Demand, count: int) -> None:
        for _ in range(count):
            self.acquire(key, demand, 1)

    @rule(key=st.sampled_from(KEYS), latest=LATEST, demand=demands())
    def acquire_again(self, key: str, latest: int, demand: Demand) -> None:
        self._acquire(key, self._latest(latest), demand, 1)

    def _acquire(self, key: str, lease_id: str, demand: Demand, times: int) -> None:
        for _ in range(times):
            call = self.calls[key].acquire(self.incarnation, LeaseId(lease_id), demand, CRASHED)
            self._agree_on_admission(key, read(run(self.published, call)), self.model.acquire(key, lease_id, demand))

    @rule(key=st.sampled_from(KEYS), latest=LATEST, share=st.floats(0, 1), times=st.integers(1, 3))
    def settle(self, key: str, latest: int, share: float, times: int) -> None:
        self._settle(key, self._latest(latest), share, times)

    @precondition(lambda self: self._open())
    @rule(share=st.floats(0, 1), which=st.integers(0, 5))
    def settle_open(self, share: float, which: int) -> None:
        lease_id = self._open()[which % len(self._open())]
        self._settle(self.model.leases[lease_id].key, lease_id, share, 1)

    def _settle(self, key: str, lease_id: str, share: float, times: int) -> None:
        held = self.model.leases.get(lease_id)
        key = key if held is None else held.key
        tokens = round(share * (100 if held is None or held.state != "open" else held.reserved))
        lease = self._lease(lease_id)
        raw = records.encode(event(lease_id))
        for _ in range(times):
            decision = decision_of(run(self.published, self.calls[key].settle(self.incarnation, lease, raw, tokens)))
            assert decision.decode() == self.model.settle(key, lease_id, tokens)

    @precondition(lambda self: any(held.state == "reaped" for held in self.model.leases.values()))
    @rule(share=st.floats(0, 1), times=st.integers(1, 3))
    def settle_late(self, share: float, times: int) -> None:
        lease_id, held = next(pair for pair in self.model.leases.items() if pair[1].state == "reaped")
        self._settle(held.key, lease_id, share, 1)
        tokens = round(share * held.reserved)
        raw, lease = records.encode(event(f"{lease_id}:c")), self._lease(lease_id)
        for _ in range(times):
            call = self.calls[held.key].correct(self.incarnation, lease, raw, tokens - held.reserved)
            decision = decision_of(run(self.published, call))
            assert decision.decode() == self.model.correct(lease_id, tokens)

    @rule(key=st.sampled_from(KEYS), latest=LATEST, times=st.integers(1, 2))
    def abandon(self, key: str, latest: int, times: int) -> None:
        lease_id = self._latest(latest)
        held = self.model.leases.get(lease_id)
        key = key if held is None else held.key
        for _ in range(times):
            decision = run(self.published, self.calls[key].abandon(self.incarnation, LeaseId(lease_id)))
            assert decision.decode() == self.model.abandon(key, lease_id)

    @rule(latest=LATEST, key=st.sampled_from(KEYS))
    def renew(self, latest: int, key: str) -> None:
        lease_id = self._latest(latest)
        held = self.model.leases.get(lease_id)
        principal = self.principals[key if held is None else held.key]
        own, tenant = keyspace.key_scope(principal.key_id), keyspace.tenant_scope(principal.tenant_id)
        keys = [keyspace.fence(self.shard), keyspace.live(self.shard), keyspace.expiry(self.shard)]
        keys += [keyspace.leases(self.shard, own), keyspace.leases(self.shard, tenant), self._lease_name(lease_id)]
        arguments: list[Argument] = [self.incarnation, LEASE_TTL_MS, 1000, lease_id, own, tenant]
        reply = run(self.published, self.renew_script.call(keys, arguments))
        expected = {
            "unfenced": [b"unfenced"],
            "renewed": [b"renewed"],
            "lost": [b"renewed", lease_id.encode(), b"lost"],
        }
        assert reply == expected[self.model.renew(lease_id)]

    @rule(times=st.integers(1, 2))
    def reap(self, times: int) -> None:
        for _ in range(times):
            for lease_id, held in tuple(self.model.leases.items()):
                if held.state == "open" and held.until_ms <= self.model.now_ms:
                    assert self._reap(lease_id, held) == self.model.reap(lease_id)

    @rule(milliseconds=st.sampled_from(JUMPS_MS))
    def time_passes(self, milliseconds: int) -> None:
        self.model.now_ms += milliseconds
        self._set_clock()

    @precondition(lambda self: self.leases)
    @rule(latest=LATEST, demand=demands())
    def the_fence_is_away_for_a_moment(self, latest: int, demand: Demand) -> None:
        self.model.is_fenced = False
        self.published.client.delete(keyspace.fence(self.shard))
        self.acquire(KEYS[0], demand, 1)
        self.settle(KEYS[0], latest, 0.5, 1)
        self.renew(latest, KEYS[0])
        self.abandon(KEYS[0], latest, 1)
        self.reap(1)
        self.model.is_fenced = True
        self.published.stamp()
        held = self.model.leases.get(self._latest(latest))
        self._acquire(KEYS[0] if held is None else held.key, self._latest(latest), demand, 1)

    # What has to be true after every one of them

    @invariant()
    def counters_are_those_of_the_model(self) -> None:
        for (scope, period), counter in self.model.counters.items():
            found = counted.counter(self.published.client, self.shard, self._scope(scope), period)
            assert (found.used, found.reserved) == (counter.used, counter.reserved), (scope, period)

    @invariant()
    def no_budget_is_exceeded_but_by_what_nobody_could_refuse(self) -> None:
        for scope, own in self.model.limits.items():
            unknown = any(held.state == "settled" and not held.reserved for held in self.model.leases.values())
            for (whose, period), counter in self.model.counters.items():
                limit = getattr(own, _BUDGET_OF[len(period)])
                if whose == scope and limit is not None and not unknown:
                    assert counter.used + counter.reserved <= limit, (scope, period)

    @invariant()
    def slots_and_events_are_those_of_the_model(self) -> None:
        for scope in (*KEYS, TENANT):
            name = keyspace.leases(self.shard, self._scope(scope))
            alive = self.published.client.zrangebyscore(name, f"({self.model.now_ms}", "+inf")
            assert sorted(member.decode() for member in alive) == sorted(self.model.slots(scope))
        entries = self.published.client.xrange(keyspace.usage(self.shard))
        assert [records.decode(_EVENTS, raw[b"e"]).event_id for _, raw in entries] == self.model.events

    @invariant()
    def leases_are_those_of_the_model(self) -> None:
        held = {lease_id: one for lease_id, one in self.model.leases.items() if one.state == "open"}
        assert {
            member.decode(): int(score)
            for member, score in self.published.client.zrange(keyspace.expiry(self.shard), 0, -1, withscores=True)
        } == {lease_id: one.until_ms for lease_id, one in held.items()}
        for lease_id, one in held.items():
            found = counted.lease(self.published.client, self.shard, lease_id)
            assert found is not None
            assert (found.day, found.month, found.is_abandoned) == (one.day, one.day[:6], one.is_marked)
            numbers = (found.reserved, found.granted, found.estimate, found.admitted_at_ms)
            assert numbers == (one.reserved, one.granted, one.estimate, one.admitted_ms)

    # How

    def _open(self) -> list[str]:
        return [lease_id for lease_id, held in self.model.leases.items() if held.state == "open"]

    def _latest(self, number: int) -> str:
        return self.leases[-1 - number] if number < len(self.leases) else "never admitted"

    def _agree_on_admission(self, key: str, reply: list[Any], expected: Refused | Held | str) -> None:
        decision = reply[0].decode()
        if isinstance(expected, str):
            assert reply == [expected.encode()]
            return
        moment_ms = max(self.model.now_ms, self.model.last_ms(key), self.model.last_ms(TENANT))
        sums = [*self.model.sums(key, moment_ms), *self.model.sums(TENANT, moment_ms)]
        assert reply[3:7] == sums
        assert reply[7:9] == [moment_ms - self.model.last_ms(scope) for scope in (key, TENANT)]
        if isinstance(expected, Refused):
            assert (decision, reply[1], bool(reply[2])) == (
                expected.decision,
                expected.retry_after_ms,
                expected.is_final,
            )
        else:
            day, month, granted = reply[9:]
            assert (decision, str(day), granted) == ("admitted", expected.day, expected.granted)
            assert month == day // 100

    def _reap(self, lease_id: str, held: Held) -> str:
        principal = self.principals[held.key]
        scopes = (keyspace.key_scope(principal.key_id), keyspace.tenant_scope(principal.tenant_id))
        keys = [
            keyspace.fence(self.shard),
            keyspace.usage(self.shard),
            keyspace.expiry(self.shard),
            self._lease_name(lease_id),
            *(keyspace.leases(self.shard, scope) for scope in scopes),
            *(keyspace.counters(self.shard, scope) for scope in scopes),
        ]
        raw = records.encode(event(lease_id))
        reply = self.published.client.eval(
            on_test_clock(_REAP.decode()), len(keys), *keys, self.incarnation, lease_id, raw, 120_000, 86_400_000
        )
        return str(reply.decode())

    def _lease(self, lease_id: str) -> Lease:
        held = self.model.leases.get(lease_id)
        day = held.day if held is not None and held.day else self.model.day()
        return Lease(
            lease_id=LeaseId(lease_id),
            shard=self.shard,
            day=day,
            month=day[:6],
            prompt_bound=0,
            num_predict=0,
            taken_s=0.0,
        )

    def _scope(self, scope: str) -> Any:
        principal: Principal = self.principals[KEYS[0] if scope == TENANT else scope]
        is_tenant = scope == TENANT
        return keyspace.tenant_scope(principal.tenant_id) if is_tenant else keyspace.key_scope(principal.key_id)

    def _lease_name(self, lease_id: str) -> str:
        return keyspace.lease(self.shard, LeaseId(lease_id))

    def _set_clock(self) -> None:
        set_clock(self.published.client, self.model.now_ms)


SUITE = settings(
    max_examples=200,
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
# `--hypothesis-profile=quota-long`: new examples each time, for an hour without anybody waiting.
LONG = "quota-long"
settings.register_profile(LONG, SUITE, derandomize=False, max_examples=20_000)

_EVENTS = records.decoder(records.UsageEvent)
# By the length of a period: `20261121`, `202611`, `total`.
_BUDGET_OF = {8: "budget_day", 6: "budget_month", 5: "budget_total"}


@pytest.mark.timeout(300)
def test_any_order_of_calls_agrees_with_the_model(state: PublishedState, clocked_scripts: None):
    machine = type("Machine", (QuotaMachine,), {"published": state, "renew_script": clocked(scripts.RENEW)})
    run_state_machine_as_test(
        machine,
        settings=settings() if settings.get_current_profile_name() == LONG else SUITE,
    )
