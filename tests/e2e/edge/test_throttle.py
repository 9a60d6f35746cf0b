"""Who fails to authenticate too often is told so, by address, and nobody else is (A2.6)."""

from __future__ import annotations

import contextlib
import sys

import pytest

from tests.e2e.edge.wire import AUTH_FAILURES_PER_MINUTE, TRUSTED_PROXY, Answer, Wire, request

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")

ATTACKER, NEIGHBOUR = "127.0.0.9", "127.0.0.10"
CLIENT, OTHER_CLIENT = "198.51.100.9", "198.51.100.10"
AT_ONCE = 20
# Those that were on their way when the limit was reached are judged by it too.
EACH = AUTH_FAILURES_PER_MINUTE // AT_ONCE + 2
START = b"GET /api/version HTTP/1.1"


def asking(key: str | None, *forwarded: str) -> bytes:
    lines = (f"X-Forwarded-For: {value}".encode() for value in forwarded)
    return request(key, *lines, start=START, content_type=None)


def flood(url: str, source: str, *forwarded: str) -> list[int]:
    """The statuses of a little more failures than an address may have."""
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(url, source=source)) for _ in range(AT_ONCE)]
        for wire in wires:
            wire.send(asking("nz_x", *forwarded) * EACH)
        answers = [wire.answer() for wire in wires for _ in range(EACH)]
    return [answer.status for answer in answers if answer is not None]


def from_address(url: str, source: str, key: str | None, *forwarded: str) -> Answer:
    with Wire(url, source=source) as wire:
        answer = wire.send(asking(key, *forwarded)).answer()
        assert answer is not None
        return answer


def test_an_address_that_fails_too_often_is_told_to_wait_and_a_good_key_is_served(gateway, api_key):
    statuses = flood(gateway.url, ATTACKER)
    assert set(statuses) == {401, 429}
    assert AUTH_FAILURES_PER_MINUTE - AT_ONCE <= statuses.count(401) <= AUTH_FAILURES_PER_MINUTE
    refused = from_address(gateway.url, ATTACKER, "nz_x")
    assert refused.status == 429
    assert 1 <= int(refused.header("retry-after") or 0) <= 60
    assert from_address(gateway.url, ATTACKER, api_key).status == 200
    assert from_address(gateway.url, ATTACKER, None).status == 401
    assert from_address(gateway.url, NEIGHBOUR, "nz_x").status == 401
    # Nobody believes what an address that is no proxy says of others, in either direction.
    assert from_address(gateway.url, ATTACKER, "nz_x", CLIENT).status == 429
    assert from_address(gateway.url, NEIGHBOUR, "nz_x", ATTACKER).status == 401


def test_behind_a_trusted_proxy_it_is_the_hop_before_it_that_counts(gateway, api_key):
    statuses = flood(gateway.url, TRUSTED_PROXY, f"{OTHER_CLIENT}, {CLIENT}")
    assert set(statuses) == {401, 429}
    assert from_address(gateway.url, TRUSTED_PROXY, "nz_x", CLIENT).status == 429
    assert from_address(gateway.url, TRUSTED_PROXY, "nz_x", OTHER_CLIENT, CLIENT).status == 429
    assert from_address(gateway.url, TRUSTED_PROXY, "nz_x", f"{OTHER_CLIENT},{CLIENT}, {TRUSTED_PROXY}").status == 429
    assert from_address(gateway.url, TRUSTED_PROXY, "nz_x", OTHER_CLIENT).status == 401
    assert from_address(gateway.url, TRUSTED_PROXY, "nz_x", f"{CLIENT}, {OTHER_CLIENT}").status == 401
    assert from_address(gateway.url, TRUSTED_PROXY, "nz_x").status == 401
    assert from_address(gateway.url, TRUSTED_PROXY, api_key, CLIENT).status == 200


def test_an_ipv6_network_is_one_client(gateway):
    assert 429 in flood(gateway.url, TRUSTED_PROXY, "2001:db8:0:1::1")
    for same in ("2001:db8:0:1::2", "[2001:db8:0:1:ffff::9]:443"):
        assert from_address(gateway.url, TRUSTED_PROXY, "nz_x", same).status == 429
    assert from_address(gateway.url, TRUSTED_PROXY, "nz_x", "2001:db8:0:2::1").status == 401
