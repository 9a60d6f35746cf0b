"""Which block an address is counted in."""

from __future__ import annotations

import pytest

from dataplane.quota.failures import address_block


@pytest.mark.parametrize(
    ("address", "block"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:0db8:0001:0002:ffff::", "2001:db8:1:2::/64"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", "unknown"),
        ("gateway:{s00}:fence", "unknown"),
    ],
)
def test_address_belongs_to_a_block(address: str, block: str):
    assert address_block(address) == block
