"""Keys that are none, no longer, or not quite: one answer for all of them, and none is written down (A2.1–A2.5)."""

from __future__ import annotations

import datetime as dt
import uuid

import pytest

from shared import apikey
from tests.e2e.edge.wire import Wire, ask, chat_body, request
from tests.e2e.harness import Gateway, eventually

LISTING = b"GET /api/version HTTP/1.1"


def with_authorization(*values: bytes, start: bytes = LISTING, fields: tuple[bytes, ...] = ()) -> bytes:
    lines = (b"Authorization: " + value for value in values)
    return request(None, *lines, *fields, start=start, body=chat_body())


def comparable(gateway: Gateway, data: bytes) -> tuple[int, tuple[tuple[str, str], ...], bytes]:
    """What a refused client gets, without what differs in every reply."""
    answer = ask(gateway.url, data)
    headers = tuple(pair for pair in answer.headers if pair[0] not in ("date", "x-request-id"))
    return answer.status, headers, answer.body


def resealed(pepper: bytes, key: str, *, prefix: str | None = None) -> str:
    """A key with a right checksum and another secret; with ``prefix`` that of another key."""
    other = apikey.mint(pepper)
    body = (prefix or other[: apikey.PREFIX_LENGTH]) + other[apikey.PREFIX_LENGTH : -apikey.CHECKSUM_LENGTH]
    assert len(body) + apikey.CHECKSUM_LENGTH == len(key)
    sealed = body + apikey._checksum(pepper, body)
    assert apikey.is_valid(pepper, sealed)
    return sealed


@pytest.fixture(scope="module")
def pepper(gateway) -> bytes:
    return gateway.dataplane_environment()["GATEWAY_KEY_PEPPER"].encode()


@pytest.fixture(scope="module")
def bad_keys(gateway, api_key, pepper) -> dict[str, str]:
    """One key for each reason to refuse one. Those that could be were used while they were good."""
    tenant, suspended = (f"t-{uuid.uuid4().hex[:10]}" for _ in range(2))
    for name in (tenant, suspended):
        gateway.tenant(name)
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=1.5)
    expired = gateway.key(tenant, expires_at=soon)
    revoked, late = gateway.key(tenant), gateway.key(suspended)
    ask(gateway.url, request(expired, start=LISTING))
    for key in (revoked, late, api_key):
        assert ask(gateway.url, request(key, start=LISTING)).status == 200
    gateway.revoke(revoked)
    gateway.suspend_tenant(suspended)
    eventually(lambda: ask(gateway.url, request(expired, start=LISTING)).status == 401, what="the expiry")
    return {
        "revoked": revoked,
        "suspended": late,
        "expired": expired,
        "unknown": apikey.mint(pepper),
        "wrong secret": resealed(pepper, api_key, prefix=api_key[: apikey.PREFIX_LENGTH]),
        "wrong checksum": api_key[:-1] + ("a" if api_key[-1] != "a" else "b"),
        "malformed": "nz_x",
    }


@pytest.mark.parametrize(
    "start",
    [LISTING, b"POST /api/chat HTTP/1.1", b"POST /api/pull HTTP/1.1", b"POST /nope HTTP/1.1"],
    ids=lambda start: f"A2.1-{start.split()[1].decode()}",
)
def test_every_key_that_is_not_good_gets_the_same_answer(gateway, mock, bad_keys, start):
    """A2.1, A2.5: also the wrong secret of a key that is in the cache."""
    found = {name: comparable(gateway, request(key, start=start, body=chat_body())) for name, key in bad_keys.items()}
    assert found["unknown"][0] == 401
    assert {name: answer for name, answer in found.items() if answer != found["unknown"]} == {}
    assert mock.requests() == []


def test_a_key_is_its_bytes(gateway, mock, api_key):
    """A2.2: nothing is trimmed, folded or decoded on the way."""
    key = api_key.encode()
    variants = [
        key[:-1], key + b"a", key.lower(), key.upper(), key.swapcase(), b"NZ_" + key[3:], key[3:], b" " + key,
        key + b"\xa0", b'"' + key + b'"', key + b";", key + b",", key + b"%00", b"nz%5F" + key[3:], key + b"=",
        "nz_\uff21".encode() + key[4:], key.replace(b"nz_", b"nz-"), key * 4, key + b"a" * 10_000, b"", b"null",
    ]  # fmt: skip
    wanted = comparable(gateway, with_authorization(b"Bearer nz_x"))
    assert wanted[0] == 401
    for variant in variants:
        assert comparable(gateway, with_authorization(b"Bearer " + variant)) == wanted, variant
    for scheme in (b"Basic ", b"Token ", b"Bearer", b"Bearer\t", b"", b"Digest ", b"bearer: "):
        assert comparable(gateway, with_authorization(scheme + key))[0] == 401, scheme
    assert mock.requests() == []


@pytest.mark.parametrize("scheme", [b"Bearer", b"bearer", b"BEARER"])
def test_the_scheme_has_no_case(gateway, api_key, scheme):
    """A2.2."""
    assert ask(gateway.url, with_authorization(scheme + b" " + api_key.encode())).status == 200


def test_a_key_stands_once(gateway, mock, api_key):
    """A2.3: two headers, one header with two keys, a good one first or last."""
    good, bad = b"Bearer " + api_key.encode(), b"Bearer nz_x"
    for values in (
        (good, good),
        (good, bad),
        (bad, good),
        (good + b", " + good,),
        (good + b"," + bad,),
        (bad + b", " + good,),
    ):
        assert ask(gateway.url, with_authorization(*values)).status == 401, values
        assert ask(gateway.url, with_authorization(*values, start=b"POST /api/chat HTTP/1.1")).status == 401, values
    assert mock.requests() == []


def test_a_key_in_the_wrong_place_is_none_and_is_not_written_down(gateway, mock, tenant):
    """A2.4: query, path, cookie, other headers, user and password, the body; no log of the stack has it afterwards."""
    api_key = gateway.key(tenant)
    key = api_key.encode()
    elsewhere = [
        request(None, start=b"GET /api/version?api_key=%s&key=%s&access_token=%s HTTP/1.1" % (key, key, key)),
        request(None, start=b"GET /api/version/%s HTTP/1.1" % key),
        request(None, start=b"GET http://user:%s@gateway.test/api/version HTTP/1.1" % key),
        request(None, b"Cookie: api_key=%s; Authorization=Bearer %s" % (key, key), start=LISTING),
        request(None, b"X-API-Key: " + key, b"api-key: " + key, b"X-Authorization: Bearer " + key, start=LISTING),
        request(None, b"Proxy-Authorization: Bearer " + key, start=LISTING),
        request(None, b"Sec-WebSocket-Protocol: bearer, " + key, start=LISTING),
        request(None, body=b'{"model":"llama3.2","api_key":"%s","messages":[]}' % key),
        request(None, b"User-Agent: " + key, b"X-Request-ID: " + key, b"X-Forwarded-For: " + key, start=LISTING),
        with_authorization(b"Basic " + key, fields=(b"X-A: " + key,)),
    ]
    for data in elsewhere:
        answer = ask(gateway.url, data)
        assert answer.status in (400, 401), data
        assert key not in answer.body
        assert api_key not in str(answer.headers)
    assert ask(gateway.url, request(api_key, start=b"POST /nope/%s?%s HTTP/1.1" % (key, key))).status == 404
    assert mock.requests() == []
    logs = list((gateway.state / "logs").glob("*.log"))
    assert len(logs) >= 4
    assert [log.name for log in logs if key in log.read_bytes() or key[12:40] in log.read_bytes()] == []


def test_one_connection_may_speak_for_many(gateway, mock, api_key):
    """A2.5: nothing is remembered of who asked before on the same connection."""
    with Wire(gateway.url) as wire:
        for key, status in ((api_key, 200), (None, 401), ("nz_x", 401), (api_key, 200), (api_key[:-1], 401)):
            answer = wire.send(request(key, body=chat_body())).answer()
            assert answer is not None
            assert answer.status == status
    assert len(mock.requests()) == 2
