"""How counters and leases are laid out in Redis, for the scripts of both planes and for those who read without one.

The Lua files beside this module are the layout: scripts include them. Servers that hold another layout have no valid
fence, because its version is the first part of every incarnation: everything is denied until they were rebuilt.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import msgspec

from shared.keyspace import Period, Scope

VERSION = 3
TOTAL = Period("total")

_HERE = Path(__file__).parent
_COUNTERS = struct.Struct("<14d")
# Behind the counters: the head of the windows.
_COUNTERS_SIZE = _COUNTERS.size + struct.calcsize("<7d")
# Where the four periods stand; `used` and `reserved` behind each.
_PERIODS_AT = (2, 5, 8, 11)
# Behind the word: `reserved` and what follows it; then the mark and the scopes.
_LEASE = struct.Struct("<7d")
_LEASE_HEAD = b"open "
_DAY_LENGTH, _MONTH_LENGTH = len("20261121"), len("202611")


class LayoutError(ValueError):
    """Bytes in Redis that are no counters or no lease of this layout."""


class Counter(msgspec.Struct, frozen=True):
    """Tokens of a scope in a period."""

    used: int = 0
    reserved: int = 0


class OpenLease(msgspec.Struct, frozen=True, kw_only=True):
    """What the string of an open lease says."""

    reserved: int
    # Tokens that it counts in the windows.
    estimate: int
    # When it was admitted by the server's clock, in milliseconds; 0 when that is not known.
    admitted_at_ms: int
    # The granted `num_predict`.
    granted: int
    # Of `reserved` the most that its prompt can have been.
    prompt_bound: int
    day: str
    month: str
    is_abandoned: bool
    key: Scope
    tenant: Scope
    # The usage event for the case that nobody settles.
    prepared: bytes


def incarnation(run_id: str, replication_id: str) -> str:
    """What every valid fence of a server begins with: ``<layout>:<run id>:<replication id>:``."""
    return f"{VERSION}:{run_id}:{replication_id}:"


def included(name: str) -> bytes:
    """The source of ``counters`` or ``leases``, for the scripts that include it."""
    return (_HERE / f"{name}.lua").read_bytes()


def read_counters(raw: bytes | None) -> dict[Period, Counter]:
    """The counters of a scope by period, without those of which there are none. Raises LayoutError."""
    if raw is None:
        return {}
    if len(raw) != _COUNTERS_SIZE:
        raise LayoutError(f"counters have {len(raw)} bytes instead of {_COUNTERS_SIZE}")
    try:
        numbers = [int(number) for number in _COUNTERS.unpack_from(raw)]
    except (ValueError, OverflowError) as fault:
        raise LayoutError("a counter is not a number") from fault
    periods = {Period(str(numbers[at])): Counter(*numbers[at + 1 : at + 3]) for at in _PERIODS_AT if numbers[at]}
    return periods | {TOTAL: Counter(*numbers[:2])}


def write_counters(counters: Mapping[Period, Counter]) -> bytes:
    """Counters by period as they stand before the head of the windows; of days and of months the two newest."""
    total = counters.get(TOTAL, Counter())
    numbers = [total.used, total.reserved]
    for length in (_DAY_LENGTH, _MONTH_LENGTH):
        newest = sorted((period for period in counters if period != TOTAL and len(period) == length), reverse=True)[:2]
        numbers += [number for period in newest for number in (int(period), *_pair(counters[period]))]
        numbers += [0, 0, 0] * (2 - len(newest))
    return _COUNTERS.pack(*numbers)


def state_of(raw: bytes | None) -> str:
    """``open``, ``settled`` or ``reaped``; empty where there is no lease."""
    return "" if raw is None else raw.partition(b" ")[0].decode(errors="replace")


def read_lease(raw: bytes) -> OpenLease:
    """An open lease. Raises LayoutError."""
    try:
        numbers = _LEASE.unpack_from(raw, len(_LEASE_HEAD))
        reserved, estimate, admitted_at_ms, granted, prompt_bound, day, month = whole = [int(one) for one in numbers]
        mark, key, tenant, prepared = raw[len(_LEASE_HEAD) + _LEASE.size :].split(b" ", 3)
        if (
            not raw.startswith(_LEASE_HEAD)
            or [*numbers] != whole
            or mark not in (b"-", b"x")
            or min(reserved, estimate, granted, prompt_bound) < 0
        ):
            raise LayoutError("a lease with impossible parts")
        return OpenLease(
            reserved=reserved,
            estimate=estimate,
            admitted_at_ms=admitted_at_ms,
            granted=granted,
            prompt_bound=prompt_bound,
            day=str(day),
            month=str(month),
            is_abandoned=mark == b"x",
            key=Scope(key.decode()),
            tenant=Scope(tenant.decode()),
            prepared=prepared,
        )
    except LayoutError:
        raise
    except (ValueError, OverflowError, struct.error) as fault:
        raise LayoutError("a lease without its parts") from fault


def _pair(counter: Counter) -> tuple[int, int]:
    return counter.used, counter.reserved
