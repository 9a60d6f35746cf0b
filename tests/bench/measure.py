"""One measurement: one target, one case, so many connections, once. Everything else is made of these."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.bench import processes
from tests.bench.cases import Case
from tests.bench.load import Answers, Load
from tests.bench.targets import Target

WARM_UP_S = 0.1
# What a request leaves behind (its settlement) belongs to it.
_AFTERMATH_S = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One measurement. CPU in µs per request by role; times in seconds."""

    target: str
    case: str
    connections: int
    requests: int
    # Of the clock on the wall, while everything else ran on the same cores.
    requests_per_s: float
    cpu_us: Mapping[str, float]
    load_us: float
    p50_s: float
    p99_s: float
    first_p50_s: float
    first_p99_s: float
    rss_bytes: Mapping[str, int]
    # What Redis itself counts for its scripts, in µs per request; None where there is none.
    script_us: float | None = None
    # The share of the subject's CPU time by thread, largest first.
    threads: tuple[float, ...] = field(default=())


async def measured(target: Target, case: Case, connections: int, seconds: float) -> Sample:
    """Asks for ``seconds``, after a moment that does not count. Raises ``LoadError`` when the answers are none."""
    message = case.request.to_bytes(target.url, target.api_key)
    async with Load(target.url, [message], connections) as load:
        if not case.spread_s:
            await load.run(seconds=WARM_UP_S)
        before, threads_before = _cpu(target), _threads(target)
        _forget_scripts(target)
        load_s = time.process_time()
        answers = await load.run(seconds=case.spread_s or seconds, spread_s=case.spread_s)
        load_s = time.process_time() - load_s
        await asyncio.sleep(_AFTERMATH_S)
        after, threads_after = _cpu(target), _threads(target)
        script_us = _script_us(target)
    return _sample(
        target,
        case,
        answers,
        connections=connections,
        cpu_us={role: after[role] - before[role] for role in after},
        load_us=load_s * 1e6,
        script_us=script_us,
        threads=tuple(sorted((ns - threads_before.get(one, 0) for one, ns in threads_after.items()), reverse=True)),
    )


def _sample(
    target: Target,
    case: Case,
    answers: Answers,
    *,
    connections: int,
    cpu_us: Mapping[str, float],
    load_us: float,
    script_us: float | None,
    threads: tuple[int, ...],
) -> Sample:
    count = len(answers.took_s)
    took_s, first_s = sorted(answers.took_s), sorted(answers.first_s)
    busy_ns = sum(threads) or 1
    return Sample(
        target=target.name,
        case=case.name,
        connections=connections,
        requests=count,
        requests_per_s=count / answers.lasted_s,
        cpu_us={role: us / count for role, us in cpu_us.items()},
        load_us=load_us / count,
        p50_s=took_s[count // 2],
        p99_s=took_s[count * 99 // 100],
        first_p50_s=first_s[count // 2],
        first_p99_s=first_s[count * 99 // 100],
        rss_bytes={role: processes.rss_bytes(pids) for role, pids in target.pids.items()},
        script_us=None if script_us is None else script_us / count,
        threads=tuple(round(ns / busy_ns, 3) for ns in threads if ns > busy_ns / 100),
    )


def _cpu(target: Target) -> dict[str, float]:
    # Postgres starts further processes when they are needed.
    families = {role: {one for pid in pids for one in processes.family(pid)} for role, pids in target.pids.items()}
    return {role: processes.cpu_us(pids) for role, pids in families.items()}


def _threads(target: Target) -> dict[int, int]:
    found: dict[int, int] = {}
    for pid in target.pids[target.subject]:
        found |= processes.threads_ns(pid)
    return found


def _forget_scripts(target: Target) -> None:
    if target.gateway is not None:
        target.gateway.redis.config_resetstat()


def _script_us(target: Target) -> float | None:
    if target.gateway is None:
        return None
    stats = target.gateway.redis.info("commandstats")
    return float(sum(stats.get(f"cmdstat_{name}", {}).get("usec", 0) for name in ("fcall", "evalsha", "eval")))


async def settled(target: Target, timeout_s: float = 20.0) -> None:
    """Waits until the usage of what was measured is in Postgres, so that it does not disturb what comes next."""
    if target.gateway is None:
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            while target.gateway.undrained():
                await asyncio.sleep(0.05)
