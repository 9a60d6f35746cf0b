"""What the admission scripts have to do, once more, in memory and as plainly as it can be said.

One tenant with several keys. Nothing here is clever: windows are lists of all admissions, and every sum is made anew.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from dataplane.values import Demand, Limits

LEASE_TTL_MS = 30_000
MINUTE_MS = 60_000
EXACT_UP_TO = 128
BUCKETS = 61
LEAST_OUTPUT = 16
TENANT = "tenant"

BUDGETS = ("budget_day", "budget_month", "budget_total")


@dataclass
class Admission:
    """One entry of the windows."""

    moment_ms: int
    tokens: int

    @property
    def second(self) -> int:
        return self.moment_ms // 1000


@dataclass
class Held:
    """A lease, or its tombstone."""

    key: str
    state: str
    day: str = ""
    until_ms: int = 0
    reserved: int = 0
    granted: int = 0
    estimate: int = 0
    admitted_ms: int = 0
    is_marked: bool = False


@dataclass
class Counter:
    """What one scope has in one period."""

    used: int = 0
    reserved: int = 0


@dataclass
class Refused:
    """Why, how long to wait, and whether waiting is in vain."""

    decision: str
    retry_after_ms: int
    is_final: bool = False


@dataclass
class Model:
    """The state of a tenant."""

    limits: dict[str, Limits]
    now_ms: int
    is_fenced: bool = True
    windows: dict[str, list[Admission]] = field(default_factory=lambda: defaultdict(list))
    counters: dict[tuple[str, str], Counter] = field(default_factory=lambda: defaultdict(Counter))
    leases: dict[str, Held] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)

    # Admission

    def acquire(self, key: str, lease_id: str, demand: Demand) -> Refused | Held | str:
        """The lease that was given, the refusal, or the word for what cannot be decided."""
        if not self.is_fenced:
            return "unfenced"
        if (known := self.leases.get(lease_id)) is not None:
            is_alive = known.state == "open" and known.until_ms > self.now_ms and not known.is_marked
            return known if is_alive and known.key == key else "closed"
        scopes = (key, TENANT)
        moment_ms = max([self.now_ms, *(self.last_ms(scope) for scope in scopes)])
        granted, over_budget = self._granted(scopes, demand)
        if wait_ms := max(self._wait_for_request(scope, moment_ms) for scope in scopes):
            return Refused("requests", wait_ms)
        estimate = demand.prompt_estimate + granted
        if wait_ms := max(self._wait_for_tokens(scope, estimate, moment_ms) for scope in scopes):
            return Refused("tokens", wait_ms)
        for scope in scopes:
            limit = self.limits[scope].concurrent
            if limit is not None and len(self.slots(scope)) >= limit:
                return Refused("concurrency", 1000)
        if over_budget is not None:
            return over_budget
        held = Held(
            key=key,
            state="open",
            day=self.day(),
            until_ms=self.now_ms + LEASE_TTL_MS,
            reserved=demand.prompt_bound + demand.output_factor * granted,
            granted=granted,
            estimate=estimate,
            admitted_ms=moment_ms,
        )
        self.leases[lease_id] = held
        for scope in scopes:
            self.windows[scope].append(Admission(moment_ms, estimate))
        self._add(held, reserved=held.reserved)
        return held

    def _granted(self, scopes: tuple[str, ...], demand: Demand) -> tuple[int, Refused | None]:
        limited = []
        for name, period in zip(BUDGETS, self.periods(self.day()), strict=True):
            for scope in scopes:
                limit = getattr(self.limits[scope], name)
                if limit is not None:
                    counter = self.counters.get((scope, period), Counter())
                    left = limit - counter.used - demand.prompt_bound
                    limited.append((name, left, left - counter.reserved))
        least = demand.output_factor * min(demand.num_predict, LEAST_OUTPUT)
        for name, left, _ in limited:
            if left < least:
                return demand.num_predict, Refused(name, self._until_next(name), is_final=True)
        granted = min([demand.num_predict, *(left // demand.output_factor for _, left, _ in limited)])
        for name, _, free in limited:
            if free < demand.output_factor * granted:
                return demand.num_predict, Refused(name, 1000)
        return granted, None

    def _until_next(self, name: str) -> int:
        now = self._utc()
        tomorrow = dt.datetime.combine(now.date() + dt.timedelta(days=1), dt.time(), dt.UTC)
        if name == "budget_day":
            begins = tomorrow
        elif name == "budget_month":
            begins = dt.datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=dt.UTC)
        else:
            return 86_400_000
        return int((begins - now) / dt.timedelta(milliseconds=1))

    # The last minute

    def last_ms(self, scope: str) -> int:
        """When a scope last was admitted; 0 when it never was."""
        return max((one.moment_ms for one in self.windows[scope]), default=0)

    def sums(self, scope: str, moment_ms: int) -> tuple[int, int]:
        """Requests and tokens of the second of a moment and the sixty before it."""
        recent = self._recent(scope, moment_ms)
        return len(recent), sum(one.tokens for one in recent)

    def _recent(self, scope: str, moment_ms: int) -> list[Admission]:
        return [one for one in self.windows[scope] if one.second > moment_ms // 1000 - BUCKETS]

    def _wait_for_request(self, scope: str, moment_ms: int) -> int:
        limit = self.limits[scope].rpm
        if limit is None:
            return 0
        if limit == 0:
            return MINUTE_MS
        if limit > EXACT_UP_TO:
            return self._wait_for(scope, moment_ms, limit - 1, lambda _: 1)
        latest = self.windows[scope][-limit:]
        return max(0, latest[0].moment_ms + MINUTE_MS - moment_ms) if len(latest) == limit else 0

    def _wait_for_tokens(self, scope: str, tokens: int, moment_ms: int) -> int:
        limit = self.limits[scope].tpm
        return 0 if limit is None else self._wait_for(scope, moment_ms, limit - tokens, lambda one: one.tokens)

    def _wait_for(self, scope: str, moment_ms: int, most: int, weight: Callable[[Admission], int]) -> int:
        recent = self._recent(scope, moment_ms)
        if sum(map(weight, recent)) <= most:
            return 0
        for second in range(moment_ms // 1000 - BUCKETS + 1, moment_ms // 1000 + 1):
            if sum(weight(one) for one in recent if one.second > second) <= most:
                return (second + BUCKETS) * 1000 - moment_ms
        return MINUTE_MS

    # The end of a lease

    def settle(self, key: str, lease_id: str, tokens: int) -> str:
        """Charges."""
        if not self.is_fenced:
            return "unfenced"
        held = self.leases.get(lease_id)
        if held is not None and held.state != "open":
            return "again" if held.state == "settled" else "reaped"
        self.events.append(lease_id)
        if held is None:
            held = self.leases[lease_id] = Held(key=key, state="settled", day=self.day())
            self._add(held, used=tokens)
            return "charged"
        self._add(held, used=tokens, reserved=-held.reserved)
        self._correct(held, tokens - held.estimate)
        held.state = "settled"
        return "settled"

    def correct(self, lease_id: str, tokens: int) -> str:
        """Charges what a reaped lease has really cost."""
        if not self.is_fenced:
            return "unfenced"
        held = self.leases[lease_id]
        if held.state == "settled":
            return "again"
        self.events.append(f"{lease_id}:c")
        self._add(held, used=tokens - held.reserved)
        held.state = "settled"
        return "corrected"

    def abandon(self, key: str, lease_id: str) -> str:
        """Takes an admission back."""
        held = self.leases.get(lease_id)
        if held is None:
            self.leases[lease_id] = Held(key=key, state="settled")
            return "abandoned"
        if held.state != "open":
            return "settled"
        if not self.is_fenced:
            held.is_marked = True
            return "marked"
        self._add(held, reserved=-held.reserved)
        self._correct(held, -held.estimate)
        held.state = "settled"
        return "abandoned"

    def reap(self, lease_id: str) -> str:
        """Charges in full for a lease that is over."""
        if not self.is_fenced:
            return "unfenced"
        held = self.leases[lease_id]
        if held.state != "open":
            return "gone"
        if held.until_ms > self.now_ms:
            return "renewed"
        if held.is_marked:
            self._add(held, reserved=-held.reserved)
            held.state = "settled"
            return "released"
        self._add(held, used=held.reserved, reserved=-held.reserved)
        self.events.append(lease_id)
        held.state = "reaped"
        return "reaped"

    def renew(self, lease_id: str) -> str:
        """Prolongs."""
        if not self.is_fenced:
            return "unfenced"
        held = self.leases.get(lease_id)
        if held is None or held.state != "open" or held.until_ms <= self.now_ms:
            return "lost"
        held.until_ms = self.now_ms + LEASE_TTL_MS
        return "renewed"

    def slots(self, scope: str) -> list[str]:
        """Leases that count against concurrency now."""
        return [
            lease_id
            for lease_id, held in self.leases.items()
            if held.state == "open" and held.until_ms > self.now_ms and scope in (held.key, TENANT)
        ]

    def _correct(self, held: Held, difference: int) -> None:
        for scope in (held.key, TENANT):
            entry = next(one for one in self.windows[scope] if self._is_of(one, held))
            if entry.second > self.last_ms(scope) // 1000 - BUCKETS:
                entry.tokens += difference

    @staticmethod
    def _is_of(entry: Admission, held: Held) -> bool:
        # Tokens of one second are one bucket: any entry of that second stands for all.
        return entry.second == held.admitted_ms // 1000

    def _add(self, held: Held, *, used: int = 0, reserved: int = 0) -> None:
        for scope in (held.key, TENANT):
            for period in self.periods(held.day):
                if self._is_kept(scope, period):
                    self.counters[scope, period].used += used
                    self.counters[scope, period].reserved += reserved

    def _is_kept(self, scope: str, period: str) -> bool:
        """Whether a scope counts a period: it does the two newest days and months that it was charged for."""
        known = {one for of, one in self.counters if of == scope and len(one) == len(period)} | {period}
        for over in sorted(known)[:-2]:
            self.counters.pop((scope, over), None)
        return period in sorted(known)[-2:]

    # Time

    def day(self) -> str:
        """The day of now."""
        return f"{self._utc():%Y%m%d}"

    @staticmethod
    def periods(day: str) -> tuple[str, str, str]:
        """Day, month and total of a day."""
        return day, day[:6], "total"

    def _utc(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self.now_ms / 1000, dt.UTC)
