"""Running checks: all at once, each within its deadline; what raises is a finding and ends nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec
from redis.exceptions import NoPermissionError

from controlplane.doctor.findings import Finding, failed, skipped
from controlplane.errors import ControlPlaneError


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """Something to look at; ``name`` is that of the finding when there is no other."""

    name: str
    look: Callable[[], Awaitable[Sequence[Finding]]]


async def run(checks: Sequence[Check], *, timeout_s: float) -> list[Finding]:
    """The findings of all checks in the order of the checks, each of which has ``timeout_s``. Raises nothing."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_guarded(check, timeout_s)) for check in checks]
    return [finding for task in tasks for finding in task.result()]


async def _guarded(check: Check, timeout_s: float) -> Sequence[Finding]:
    try:
        async with asyncio.timeout(timeout_s):
            return await check.look()
    except TimeoutError:
        advice = "see whether it is overloaded or a firewall drops packets; --timeout waits longer"
        return [failed(check.name, f"no answer within {timeout_s:g} s", advice)]
    except ControlPlaneError as fault:
        if isinstance(fault.__cause__, NoPermissionError):
            return [skipped(check.name, "this user of Redis may not look", "run doctor as a control plane's user")]
        return [failed(check.name, str(fault), "see the log of that server")]
    except Exception as fault:  # what nobody thought of is a finding, too; its text might quote a secret
        return [failed(check.name, f"the check itself ended with {type(fault).__name__}", "report this as a defect")]
