"""Failed authentications, counted per address block and minute across the fleet.

Only failures are throttled: a valid key is served whatever its neighbours do. A block over its limit is remembered
here until its window ends, so that a flood costs Redis nothing.
"""

from __future__ import annotations

import ipaddress
import math
from dataclasses import dataclass
from functools import lru_cache

from dataplane.errors import CannotCheckError
from dataplane.quota.link import Link
from dataplane.quota.scripts import AUTHFAIL
from shared import keyspace, logs
from shared.clock import Clock

WINDOW_MS = 60_000
_IPV6_PREFIX_BITS = 64
_MAX_BLOCKED = 16_384

log = logs.get(__name__)


@dataclass(slots=True)
class FailureCounts:
    """What has happened since the worker started, for its metrics."""

    recorded: int = 0
    blocked: int = 0


class RedisFailures:
    """Implements ``ports.Failures``. ``limit`` is how many failures of a block a minute may see."""

    def __init__(self, *, link: Link, limit: int, clock: Clock) -> None:
        self._link = link
        self._limit = limit
        self._clock = clock
        self.counts = FailureCounts()
        # Block → when its window ends, in seconds of the monotonic clock.
        self._blocked: dict[str, float] = {}

    async def record(self, client_ip: str) -> int | None:
        """Counts a failure; gives the seconds for which the block stays blocked, None while it may still fail."""
        self.counts.recorded += 1
        block = address_block(client_ip)
        now_s = self._clock.monotonic()
        until_s = self._blocked.get(block)
        if until_s is not None:
            if until_s > now_s:
                self.counts.blocked += 1
                return _whole_seconds(until_s - now_s)
            del self._blocked[block]
        try:
            call = AUTHFAIL.call((keyspace.auth_failures(block),), (WINDOW_MS,))
            failures, remaining_ms = await self._link.call(None, call)
        except CannotCheckError:
            return None
        if failures <= self._limit:
            return None
        self._block(block, now_s + remaining_ms / 1000)
        return _whole_seconds(remaining_ms / 1000)

    def _block(self, block: str, until_s: float) -> None:
        log.warning("address_block_blocked", block=block)
        self.counts.blocked += 1
        if len(self._blocked) >= _MAX_BLOCKED:
            del self._blocked[next(iter(self._blocked))]
        self._blocked[block] = until_s

    def __repr__(self) -> str:
        return f"RedisFailures(blocked={len(self._blocked)})"


@lru_cache(maxsize=4096)
def address_block(client_ip: str) -> str:
    """The block that an address is counted in: an IPv4 address alone, an IPv6 address with its /64."""
    try:
        address = ipaddress.ip_address(client_ip)
    except ValueError:
        return "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            bits = 128 - _IPV6_PREFIX_BITS
            return f"{ipaddress.IPv6Address(int(address) >> bits << bits)}/{_IPV6_PREFIX_BITS}"
        address = address.ipv4_mapped
    return str(address)


def _whole_seconds(seconds: float) -> int:
    return max(1, math.ceil(seconds))
