"""Whose address a request is counted and audited under.

``X-Forwarded-For`` is believed only from trusted peers, and then only its right-most entry that is not trusted itself:
everything further left is what a client may have written.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

UNKNOWN = "0.0.0.0"  # noqa: S104 - an address to count under, not one to bind
MAX_HOPS = 32


class TrustedProxies:
    """Peers that may speak for others: addresses, networks, and host names that ``resolve`` looks up."""

    def __init__(self, proxies: Iterable[str]) -> None:
        networks: list[Network] = []
        names: list[str] = []
        for proxy in proxies:
            try:
                networks.append(ipaddress.ip_network(proxy, strict=False))
            except ValueError:
                names.append(proxy)
        self._networks = tuple(networks)
        self._names = tuple(names)
        self._resolved: frozenset[Address] = frozenset()
        self._none = not networks and not names

    @property
    def has_names(self) -> bool:
        """Whether there is anything to look up now and then."""
        return bool(self._names)

    async def resolve(self) -> None:
        """Looks the host names up; one that cannot be found trusts nobody."""
        loop = asyncio.get_running_loop()
        found: set[Address] = set()
        for name in self._names:
            try:
                entries = await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            except OSError:
                continue
            found.update(ipaddress.ip_address(entry[4][0]) for entry in entries)
        self._resolved = frozenset(found)

    def client_ip(self, peer: str, forwarded: Iterable[bytes]) -> str:
        """The address to count under: the peer's, or what trusted peers say of the hop before them.

        ``forwarded`` holds the values of every ``X-Forwarded-For`` header, in order. A malformed entry ends the walk:
        the last address that could be trusted so far stands.
        """
        if self._none:
            return peer or UNKNOWN
        current = _address(peer)
        if current is None:
            return peer or UNKNOWN
        hops = [hop for value in forwarded for hop in value.split(b",")][-MAX_HOPS:]
        while self._trusts(current) and hops:
            hop = _address(hops.pop().strip().decode("latin-1"))
            if hop is None:
                break
            current = hop
        return str(current)

    def _trusts(self, address: Address) -> bool:
        return address in self._resolved or any(
            address.version == network.version and address in network for network in self._networks
        )

    def __repr__(self) -> str:
        return f"TrustedProxies(networks={len(self._networks)}, names={self._names})"


def _address(text: str) -> Address | None:
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
