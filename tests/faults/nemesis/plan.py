"""Which fault begins when, where, and for how long: a pure function of the seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

QUIET_S = 2.0
MEAN_GAP_S = 1.2
AT_ONCE = 3
# What a killed worker held comes back with its leases, after half a minute: so such faults come early.
EARLY = 0.5
# What a killed worker held is known to Redis alone until its leases have ended, and what was settled since Redis was
# emptied to the workers alone until it is rebuilt: nobody promises that both may be lost within this time.
APART_S = 45.0
_LINK_FAULTS = ("hold", "hold requests", "hold replies", "reset", "delay", "slice", "narrow", "refuse", "hang")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault. ``where``: a process, or ``plane>server`` for the link between them; seconds are from the start."""

    number: int
    kind: str
    where: str
    at_s: float
    for_s: float

    @property
    def until_s(self) -> float:
        return self.at_s + self.for_s


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
    kinds: tuple[str, ...]
    places: tuple[str, ...]
    weight: int
    shortest_s: float = 0.4
    longest_s: float = 3.0
    is_early: bool = False


def plan(seed: int, duration_s: float, links: Sequence[tuple[str, str]], mocks: Sequence[str]) -> list[Fault]:
    """The schedule for so many seconds, in the order of its beginnings; at the end it is quiet again."""
    source = random.Random(seed)
    choices = _choices(links, mocks)
    faults: list[Fault] = []
    now_s = QUIET_S
    while True:
        now_s += source.expovariate(1 / MEAN_GAP_S)
        if now_s > duration_s - QUIET_S:
            return faults
        current = [fault for fault in faults if fault.until_s > now_s]
        allowed = [one for one in choices if not one.is_early or now_s < EARLY * duration_s]
        [choice] = source.choices(allowed, [one.weight for one in allowed])
        kind, where = source.choice(choice.kinds), source.choice(choice.places)
        for_s = min(source.uniform(choice.shortest_s, choice.longest_s), duration_s - QUIET_S - now_s)
        if len(current) >= AT_ONCE or any(where == fault.where for fault in current) or for_s <= 0:
            continue
        if any(_is_too_much(kind, where, fault) for fault in faults if now_s - fault.at_s < APART_S):
            continue
        faults.append(
            Fault(number=len(faults) + 1, kind=kind, where=where, at_s=round(now_s, 3), for_s=round(for_s, 3))
        )


def _choices(links: Sequence[tuple[str, str]], mocks: Sequence[str]) -> list[_Choice]:
    def between(plane: str, *servers: str) -> tuple[str, ...]:
        return tuple(f"{one}>{server}" for one, server in links if one.startswith(plane) and server.startswith(servers))

    data = tuple(sorted({plane for plane, _ in links if plane.startswith("dataplane")}))
    control = tuple(sorted({plane for plane, _ in links if plane.startswith("controlplane")}))
    return [
        _Choice(kinds=_LINK_FAULTS, places=between("dataplane", "redis"), weight=6),
        _Choice(kinds=_LINK_FAULTS, places=between("dataplane", *mocks), weight=5),
        _Choice(kinds=_LINK_FAULTS, places=between("dataplane", "controlplane"), weight=3),
        _Choice(kinds=_LINK_FAULTS, places=between("controlplane", "redis"), weight=3),
        _Choice(kinds=_LINK_FAULTS, places=between("controlplane", "postgres", *mocks), weight=3),
        _Choice(kinds=("stop",), places=("redis",), weight=3, shortest_s=0.8),
        _Choice(kinds=("kill",), places=("redis",), weight=1, is_early=True),
        _Choice(kinds=("empty",), places=("redis",), weight=1, is_early=True),
        _Choice(kinds=("forget scripts",), places=("redis",), weight=1),
        _Choice(kinds=("stop", "kill"), places=("postgres",), weight=2),
        _Choice(kinds=("stop",), places=(*data, *control, *mocks), weight=3),
        _Choice(kinds=("kill", "terminate"), places=data, weight=1, is_early=True),
        _Choice(kinds=("kill", "terminate"), places=control, weight=1),
    ]


def _is_too_much(kind: str, where: str, earlier: Fault) -> bool:
    deaths = [_is_death_of_a_worker(kind, where), _is_death_of_a_worker(earlier.kind, earlier.where)]
    return any(deaths) and "empty" in (kind, earlier.kind)


def _is_death_of_a_worker(kind: str, where: str) -> bool:
    return kind in ("kill", "terminate") and where.startswith("dataplane")
