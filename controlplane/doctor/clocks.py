"""Clocks: this machine's against those of Redis and Postgres.

Windows, leases and budgets follow Redis, days of the ledger follow Postgres, expiries of keys and certificates the
machines of the planes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from controlplane.doctor.findings import Finding, ok, warning
from shared.clock import Clock

# Expiries and the hands of people are not finer; machines with NTP are off by milliseconds.
TOLERATED_S = 2.0


async def compared(server: str, ask: Callable[[], Awaitable[float]], clock: Clock) -> list[Finding]:
    """How far the clock of a server is ahead of ours; ``ask`` gives its seconds since 1970."""
    name = f"clocks.{server}"
    before_s = clock.unix_s()
    theirs_s = await ask()
    after_s = clock.unix_s()
    # Their moment lies somewhere between ours.
    ahead_s = theirs_s - (before_s + after_s) / 2
    if abs(ahead_s) <= TOLERATED_S + (after_s - before_s) / 2:
        return [ok(name, f"{abs(ahead_s):.2f} s apart from this machine")]
    seen = f"{abs(ahead_s):.1f} s {'ahead of' if ahead_s > 0 else 'behind'} this machine"
    return [warning(name, seen, "set the clocks by NTP on both machines (timedatectl, chronyc tracking)")]
