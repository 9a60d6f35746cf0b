"""Header, format, checksum, principal; and every refusal looks the same."""

from __future__ import annotations

import asyncio

import pytest

from dataplane.errors import AuthenticationError, CannotCheckError, GatewayError, TooManyFailuresError
from dataplane.stages.authenticate import GRID_S, Authenticate
from dataplane.values import Credentials, Principal
from shared import apikey
from shared.redaction import Secret
from tests.unit.stages.principals import PRINCIPAL

PEPPER = "a pepper for tests only"
KEY = apikey.mint(PEPPER.encode())


class KnownKeys:
    """Knows one key."""

    def __init__(self, failure: GatewayError | None = None) -> None:
        self.failure = failure
        self.asked: list[str] = []

    def remembered(self, api_key: str) -> Principal | None:
        return None

    async def principal(self, api_key: str) -> Principal:
        self.asked.append(api_key)
        if self.failure is not None:
            raise self.failure
        return PRINCIPAL

    async def refreshed(self, principal: Principal) -> Principal:
        raise AssertionError("authenticate never refreshes")


class Counter:
    """Blocks an address after so many failures."""

    def __init__(self, limit: int = 1000) -> None:
        self.limit = limit
        self.recorded: list[str] = []

    async def record(self, client_ip: str) -> int | None:
        self.recorded.append(client_ip)
        return 42 if len(self.recorded) > self.limit else None


class Log:
    """Remembers."""

    def __init__(self) -> None:
        self.added: list[tuple[str, str]] = []

    def add(self, client_ip: str, reason: str) -> None:
        self.added.append((client_ip, reason))


def stage(keys: KnownKeys | None = None, failures: Counter | None = None, log: Log | None = None) -> Authenticate:
    return Authenticate(
        keys=keys or KnownKeys(), failures=failures or Counter(), log=log or Log(), pepper=Secret(PEPPER)
    )


def credentials(*headers: str | bytes) -> Credentials:
    raw = tuple(header if isinstance(header, bytes) else header.encode() for header in headers)
    return Credentials(authorization=raw, client_ip="198.51.100.7")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_valid_key_is_its_principal(scheme: str):
    keys = KnownKeys()
    assert await stage(keys)(credentials(f"{scheme} {KEY}")) is PRINCIPAL
    assert keys.asked == [KEY]


@pytest.mark.parametrize(
    ("headers", "failure"),
    [
        ((f"Bearer {KEY}", f"Bearer {KEY}"), "malformed"),
        ((f"Bearer {KEY}, Bearer {KEY}",), "malformed"),
        ((KEY,), "malformed"),
        (("",), "malformed"),
        (("Bearer",), "malformed"),
        (("Bearer ",), "malformed"),
        ((f"Bearer  {KEY}",), "malformed"),
        ((f"Bearer {KEY} ",), "malformed"),
        ((f"Bearer\t{KEY}",), "malformed"),
        ((f"Basic {KEY}",), "malformed"),
        ((f"Bearer {KEY[:-1]}",), "malformed"),
        ((f"Bearer {KEY}x",), "malformed"),
        ((f"Bearer {KEY[:20]}\0{KEY[21:]}",), "malformed"),
        (("Bearer " + "ñ" * 30,), "malformed"),
        ((b"Bearer \xff\xfe",), "malformed"),
        (("Bearer " + "n" * 65536,), "malformed"),
        ((f"Bearer {KEY.swapcase()}",), "malformed"),
        (("Bearer nz_" + KEY[3:].swapcase(),), "checksum"),
        ((f"Bearer {apikey.mint(b'another pepper altogether')}",), "checksum"),
    ],
)
async def test_wrong_form_or_checksum_is_refused_before_anything_is_looked_up(
    headers: tuple[str | bytes, ...], failure: str
):
    keys, failures = KnownKeys(), Counter()
    with pytest.raises(AuthenticationError) as refusal:
        await stage(keys, failures)(credentials(*headers))
    assert refusal.value.failure == failure
    assert keys.asked == []
    assert failures.recorded == ["198.51.100.7"]


async def test_missing_credential_is_refused_and_not_counted():
    failures = Counter(limit=0)
    with pytest.raises(AuthenticationError, match="missing"):
        await stage(failures=failures)(credentials())
    assert failures.recorded == []


@pytest.mark.parametrize("failure", ["unknown", "mismatch", "revoked", "suspended", "expired"])
async def test_every_reason_is_counted(failure):
    failures = Counter()
    authenticate = stage(KnownKeys(AuthenticationError(failure)), failures)
    with pytest.raises(AuthenticationError, match=failure):
        await authenticate(credentials(f"Bearer {KEY}"))
    assert failures.recorded == ["198.51.100.7"]
    assert authenticate.counts.failed == {failure: 1}


async def test_further_failures_of_a_blocked_address_are_told_so():
    authenticate = stage(failures=Counter(limit=1))
    with pytest.raises(AuthenticationError):
        await authenticate(credentials("Bearer nonsense"))
    with pytest.raises(TooManyFailuresError) as refusal:
        await authenticate(credentials("Bearer nonsense"))
    assert refusal.value.retry_after_s == 42
    assert authenticate.counts.throttled == 1


async def test_valid_key_is_served_from_a_blocked_address():
    failures = Counter(limit=0)
    authenticate = stage(failures=failures)
    with pytest.raises(TooManyFailuresError):
        await authenticate(credentials("Bearer nonsense"))
    assert await authenticate(credentials(f"Bearer {KEY}")) is PRINCIPAL
    assert len(failures.recorded) == 1


async def test_what_cannot_be_checked_is_no_failure():
    failures = Counter()
    with pytest.raises(CannotCheckError):
        await stage(KnownKeys(CannotCheckError("no Redis")), failures)(credentials(f"Bearer {KEY}"))
    assert failures.recorded == []


async def test_refusals_leave_on_a_grid_of_time():
    loop = asyncio.get_running_loop()
    for headers in ("Bearer nonsense", f"Bearer {KEY}"):
        authenticate = stage(KnownKeys(AuthenticationError("unknown")))
        started_s = loop.time()
        with pytest.raises(AuthenticationError):
            await authenticate(credentials(headers))
        assert started_s // GRID_S < loop.time() // GRID_S


async def test_every_failure_is_counted_for_the_audit_by_its_reason_and_no_success_is():
    log, failures = Log(), Counter(limit=2)
    authenticate = stage(KnownKeys(AuthenticationError("revoked")), failures, log)
    for headers in ((), ("Bearer nonsense",), (f"Bearer {KEY}",), (f"Bearer {KEY}",)):
        with pytest.raises(GatewayError):
            await authenticate(credentials(*headers))
    await stage(log=log)(credentials(f"Bearer {KEY}"))
    reasons = ["missing", "malformed", "revoked", "throttled"]
    assert log.added == [("198.51.100.7", reason) for reason in reasons]


async def test_failure_that_a_later_stage_has_found_has_a_row_of_its_own_and_is_not_counted_again():
    log = Log()
    await stage(log=log).refusal(credentials(f"Bearer {KEY}"), AuthenticationError("revoked"))
    assert log.added == []
