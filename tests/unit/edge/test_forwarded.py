"""Whose address a request is counted under."""

import pytest

from dataplane.api.forwarded import UNKNOWN, TrustedProxies


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "expected"),
    [
        ((), "10.0.0.1", [b"1.2.3.4"], "10.0.0.1"),
        (("10.0.0.0/8",), "10.0.0.1", [b"1.2.3.4"], "1.2.3.4"),
        (("10.0.0.0/8",), "192.0.2.1", [b"1.2.3.4"], "192.0.2.1"),
        (("10.0.0.0/8",), "10.0.0.1", [b"6.6.6.6, 1.2.3.4, 10.0.0.7"], "1.2.3.4"),
        (("10.0.0.0/8",), "10.0.0.1", [b"6.6.6.6", b"1.2.3.4"], "1.2.3.4"),
        (("10.0.0.0/8",), "10.0.0.1", [b"6.6.6.6, rubbish"], "10.0.0.1"),
        (("10.0.0.0/8",), "10.0.0.1", [], "10.0.0.1"),
        (("10.0.0.0/8",), "10.0.0.1", [b"10.0.0.9"], "10.0.0.9"),
        (("::1",), "::1", [b"2001:db8::1"], "2001:db8::1"),
        (("127.0.0.1",), "::ffff:127.0.0.1", [b"1.2.3.4"], "1.2.3.4"),
        (("127.0.0.1",), "127.0.0.1", [b"1.2.3.4:5678"], "1.2.3.4"),
        (("127.0.0.1",), "127.0.0.1", [b"[2001:db8::1]:443"], "2001:db8::1"),
        (("127.0.0.1",), "", [b"1.2.3.4"], UNKNOWN),
    ],
)
def test_only_the_right_most_untrusted_hop_counts(trusted, peer, forwarded, expected):
    assert TrustedProxies(trusted).client_ip(peer, forwarded) == expected


async def test_host_names_are_looked_up_and_unknown_ones_trust_nobody():
    proxies = TrustedProxies(("localhost", "no-such-host.invalid"))
    assert proxies.has_names
    assert proxies.client_ip("127.0.0.1", [b"1.2.3.4"]) == "127.0.0.1"
    await proxies.resolve()
    assert proxies.client_ip("127.0.0.1", [b"1.2.3.4"]) == "1.2.3.4"


def test_a_long_chain_is_walked_only_so_far():
    proxies = TrustedProxies(("10.0.0.0/8",))
    assert proxies.client_ip("10.0.0.1", [b"1.2.3.4," + b",".join([b"10.0.0.2"] * 500)]) == "10.0.0.2"
