"""The books of a gateway: what Redis counts, what the ledger says, what the mocks saw, and whether they agree."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import asyncpg
import redis as redis_client

from shared import layout
from tests.e2e.crowd import Answer
from tests.e2e.harness import Gateway, MockOllama
from tests.e2e.outputs import leaks

SETTLE_TIMEOUT_S = 90.0
_COUNTERS = re.compile(r"gateway:\{s\d\d\}:counters:([kt]):([0-9a-f-]{36})")
_KINDS = {"k": "key", "t": "tenant"}


class Account(NamedTuple):
    """Who is charged, and in which period: ``("tenant", id, "20261121")``."""

    kind: str
    id: str
    period: str


class Budget(NamedTuple):
    """What Redis holds of an account, in tokens."""

    used: int
    reserved: int


def budgets(gateway: Gateway) -> dict[Account, Budget]:
    """Every counter in Redis."""
    found = {}
    # The gateway's own client decodes what it reads.
    with redis_client.Redis.from_url(gateway.description["redis_url"]) as client:
        for name in client.scan_iter("gateway:{*}:counters:*", count=1000):
            match = _COUNTERS.fullmatch(name.decode())
            assert match, f"unexpected key {name!r}"
            for period, counter in layout.read_counters(client.get(name)).items():
                found[Account(_KINDS[match[1]], match[2], period)] = Budget(counter.used, counter.reserved)
    return found


def budget_of(gateway: Gateway, kind: str, scope_id: str, period: str = "total") -> Budget:
    """One account in Redis; nothing used and nothing reserved when there is none."""
    return budgets(gateway).get(Account(kind, scope_id, period), Budget(0, 0))


class Book(NamedTuple):
    """The ledger at one moment."""

    # Tokens by account, as derived in budget_usage and as summed over audit_log.
    derived: dict[Account, int]
    audited: dict[Account, int]
    # Outcomes by request id; corrections left out.
    outcomes: dict[str, list[str]]


def book(gateway: Gateway) -> Book:
    """Reads the ledger. Not for use inside an event loop."""
    return asyncio.run(_book(gateway.description["postgres_dsn"]))


async def _book(dsn: str) -> Book:
    connection = await asyncpg.connect(dsn, ssl=False)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            usage = await connection.fetch(
                "SELECT scope_kind, scope_id, period, total_tokens FROM gateway.budget_usage"
            )
            rows = await connection.fetch(
                "SELECT request_id, outcome, key_id, tenant_id, day, total_tokens FROM gateway.audit_log"
            )
    finally:
        await connection.close()
    derived = {Account(row["scope_kind"], str(row["scope_id"]), row["period"]): row["total_tokens"] for row in usage}
    audited: Counter[Account] = Counter()
    outcomes: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row["outcome"] != "correction":
            outcomes[row["request_id"]].append(row["outcome"])
        day = row["day"].strftime("%Y%m%d")
        for kind, scope_id in (("key", row["key_id"]), ("tenant", row["tenant_id"])):
            for period in (day, day[:6], "total") if scope_id is not None else ():
                audited[Account(kind, str(scope_id), period)] += row["total_tokens"]
    return Book(derived, dict(audited), dict(outcomes))


def disagreements(
    gateway: Gateway, mocks: Sequence[MockOllama], answers: Iterable[Answer], *, attempts: int = 1
) -> list[str]:
    """What is wrong now, in words; empty when everything agrees.

    I1 what was admitted is what went upstream, so often at most; I2 every request has exactly one audit row; I3 nothing
    is held or reserved; I4 the counters in Redis are the ledger; of I6, that every control plane can be connected to.
    Refusals are audited in collapsed rows and not looked at here.
    """
    wrong = [*_held(gateway, mocks), *(f"I6 {plane} does not listen" for plane in gateway.deaf())]
    counted, ledger = budgets(gateway), book(gateway)
    for account in sorted(counted.keys() | ledger.derived.keys() | ledger.audited.keys()):
        used = counted.get(account, Budget(0, 0)).used
        derived, audited = ledger.derived.get(account, 0), ledger.audited.get(account, 0)
        if not used == derived == audited:
            wrong.append(f"I4 {account}: Redis {used}, budget_usage {derived}, audit_log {audited}")
        if reserved := counted.get(account, Budget(0, 0)).reserved:
            wrong.append(f"I3 {account}: {reserved} tokens reserved")
    upstream = Counter(request_id_of(request) for mock in mocks for request in mock.requests())
    for request_id in upstream:
        rows = ledger.outcomes.get(request_id, [])
        if len(rows) != 1 or rows == ["refused"]:
            wrong.append(f"I1 {request_id} went upstream and has rows {rows}")
    for answer in answers:
        rows = ledger.outcomes.get(answer.request_id, [])
        if answer.status == 200 and (len(rows) != 1 or rows == ["refused"]):
            wrong.append(f"I2 {answer.request_id} was served and has rows {rows}")
        if answer.status == 200 and not 1 <= upstream[answer.request_id] <= attempts:
            wrong.append(f"I1 {answer.request_id} was served and went upstream {upstream[answer.request_id]} times")
        if answer.status in (401, 403, 429) and upstream[answer.request_id]:
            wrong.append(f"I1 {answer.request_id} was answered {answer.status} and went upstream")
    return wrong


def blemishes(
    gateway: Gateway, answers: Iterable[Answer], *, may_fail: Collection[int] = (), canaries: Collection[str] = ()
) -> list[str]:
    """What is wrong for good, in words.

    I5 no secret, key or canary is in any output; I6 no plane was started again that the test has not ended itself
    (``Gateway.may_restart``); I7 no answer is a 5xx, or a connection that broke (0), that ``may_fail`` does not name.
    """
    wrong = [f"I5 {leak}" for leak in leaks(gateway, canaries)]
    wrong += [f"I6 {plane} was started again" for plane in gateway.restarted()]
    for answer in answers:
        if answer.status not in range(200, 500) and answer.status not in may_fail:
            wrong.append(f"I7 {answer.request_id or 'a request'} was answered {answer.status}")
        if any(key.encode() in answer.body for key in gateway.minted):
            wrong.append(f"I5 {answer.request_id} was told a key")
    return wrong


def assert_invariants(
    gateway: Gateway,
    mocks: Sequence[MockOllama],
    answers: Iterable[Answer] = (),
    *,
    may_fail: Collection[int] = (),
    canaries: Collection[str] = (),
    attempts: int = 1,
    timeout_s: float = SETTLE_TIMEOUT_S,
) -> None:
    """I1 to I7: waits until there are no ``disagreements``, then there must be no ``blemishes``.

    The mocks must remember all requests of ``answers``. ``attempts``: how often a request may have gone upstream.
    """
    answers = list(answers)
    deadline_s = time.monotonic() + timeout_s
    while wrong := disagreements(gateway, mocks, answers, attempts=attempts):
        if time.monotonic() > deadline_s:
            raise AssertionError(f"{len(wrong)} disagreements after {timeout_s:g} s:\n" + "\n".join(wrong[:20]))
        time.sleep(0.25)
    if wrong := blemishes(gateway, answers, may_fail=may_fail, canaries=canaries):
        raise AssertionError(f"{len(wrong)} blemishes:\n" + "\n".join(wrong[:20]))


def _held(gateway: Gateway, mocks: Sequence[MockOllama]) -> list[str]:
    held = {"leases open": gateway.open_leases(), "usage events not drained": gateway.undrained()}
    for name in gateway.redis.scan_iter("gateway:{*}:leases:*", count=1000):
        held[f"slots in {name}"] = gateway.redis.zcard(str(name))
    for mock in mocks:
        held[f"requests in flight at {mock.name}"] = mock.stats()["in_flight"]
    return [f"I3 {count} {what}" for what, count in held.items() if count]


def request_id_of(request: dict[str, object]) -> str:
    """The id under which a request reached a mock."""
    headers: list[list[str]] = request["headers"]  # type: ignore[assignment] # JSON of the mock
    return next((value for name, value in headers if name.lower() == "x-request-id"), "")


def scope_ids(gateway: Gateway, tenant: str, api_key: str) -> dict[str, str]:
    """The ids of a tenant and a key: ``{"tenant": …, "key": …}``."""
    [row] = gateway.rows(
        "SELECT t.id AS tenant, k.id AS key FROM gateway.tenants t JOIN gateway.api_keys k ON k.tenant_id = t.id "
        "WHERE t.name = $1 AND k.prefix = $2",
        tenant,
        api_key[:12],
    )
    return {kind: str(row[kind]) for kind in ("tenant", "key")}
