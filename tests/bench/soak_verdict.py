"""What a soak has shown: whether anything grew that must not, the picture of it, and the page that tells of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from tests.bench.panels import Panel, drawing
from tests.bench.soak_samples import Series

MAX_GROWTH = 0.10
MAX_LEFT_OVER = 2.0
# How long nothing is asked before the load, and again at the very end.
SILENCE_S = 30.0
# After the last answer.
_SETTLED_S = 5.0
_MIB = 2**20
# What must be back where it was: of processes, then of the metrics of a plane.
_COUNTS = ("descriptors", "tasks", "connections", "leases_held")
_NAMES = {"descriptors": "Descriptors", "tasks": "Tasks", "connections": "Connections", "leases_held": "Leases"}


class Phases(msgspec.Struct, frozen=True, kw_only=True):
    """When what happened, in seconds of the samples: load from ``load_s`` to ``calm_s``, silence before, and last."""

    load_s: float
    calm_s: float
    end_s: float

    @property
    def warm(self) -> tuple[float, float]:
        """What memory is compared with: minutes 10 to 15 of an hour."""
        lasted_s = self.calm_s - self.load_s
        return self.load_s + lasted_s / 6, self.load_s + lasted_s / 4

    @property
    def last(self) -> tuple[float, float]:
        """The last 5 minutes of an hour."""
        return self.calm_s - (self.calm_s - self.load_s) / 12, self.calm_s

    @property
    def before(self) -> tuple[float, float]:
        """The silence before the load, when everything is connected."""
        return self.load_s - SILENCE_S + _SETTLED_S, self.load_s

    @property
    def after(self) -> tuple[float, float]:
        """The silence at the end, when what was kept for a while has gone."""
        return self.end_s - SILENCE_S + _SETTLED_S, self.end_s


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One value of one subject, before and after, and whether it may differ so."""

    subject: str
    name: str
    before: float
    after: float
    holds: bool


class Soak(msgspec.Struct, kw_only=True):
    """A whole run, as it is written to a file."""

    began_at: str
    minutes: float
    rate: float
    phases: Phases
    series: dict[str, Series]
    figures: dict[str, Any]
    wrong: list[str]


def changes(series: Mapping[str, Series], phases: Phases) -> list[Change]:
    """All that is judged, process by process."""
    return [*_memory(series, phases), *_counts(series, phases)]


def _memory(series: Mapping[str, Series], phases: Phases) -> Iterator[Change]:
    for subject, one in sorted(series.items()):
        warm, last = one.median("rss_bytes", *phases.warm), one.median("rss_bytes", *phases.last)
        if warm and last and _is_ours(subject):
            holds = last <= warm * (1 + MAX_GROWTH)
            yield Change(subject=subject, name="rss_bytes", before=warm, after=last, holds=holds)


def _counts(series: Mapping[str, Series], phases: Phases) -> Iterator[Change]:
    for subject, one in sorted(counted(series).items()):
        for name in _COUNTS:
            before, after = one.median(name, *phases.before), one.median(name, *phases.after)
            if before is not None and after is not None and _is_ours(subject):
                holds = after <= before + MAX_LEFT_OVER
                yield Change(subject=subject, name=name, before=before, after=after, holds=holds)


def counted(series: Mapping[str, Series]) -> dict[str, Series]:
    """The series with all connections of a plane, to backends or to Postgres, as one number."""
    found = {}
    for subject, one in series.items():
        found[subject] = Series(
            readings=[
                msgspec.structs.replace(reading, values={**reading.values, "connections": total})
                if (total := _connections(reading.values)) is not None
                else reading
                for reading in one.readings
            ]
        )
    return found


def _connections(values: Mapping[str, float]) -> float | None:
    """Connections that are kept for later or busy; None where nobody counts any."""
    names = ("upstream_connections_busy", "upstream_connections_idle", "database_connections")
    known = [values[name] for name in names if name in values]
    return sum(known) if known else None


def _is_ours(subject: str) -> bool:
    return subject not in ("redis", "postgres")


def wrong(found: Sequence[Change]) -> list[str]:
    """The changes that must not be, in words."""
    return [
        f"{change.subject}: {change.name} went from {_shown(change.name, change.before)} "
        f"to {_shown(change.name, change.after)}"
        for change in found
        if not change.holds
    ]


def _shown(name: str, value: float) -> str:
    return f"{value / _MIB:.1f} MiB" if name == "rss_bytes" else f"{value:g}"


def picture(soak: Soak) -> str:
    """The run as one SVG."""
    series, rows = counted(soak.series), {}
    planes = [name for name in series if name.startswith(("dataplane", "controlplane"))]
    shares = {name: _share(series[name]) for name in planes}
    rows["Processes"] = [
        _panel("Memory (RSS)", "MiB", series, planes, "rss_bytes", scale=1 / _MIB),
        _panel("Descriptors", "", series, planes, "descriptors"),
        _panel("asyncio tasks", "", series, planes, "tasks"),
        _panel("Connections to backends, Postgres", "", series, planes, "connections"),
    ]
    rows["Servers"] = [
        _panel("Memory of Redis", "MiB", series, ["redis"], "used_bytes", scale=1 / _MIB),
        _panel("Keys in Redis, events not drained", "", series, ["redis"], "keys", "waiting"),
        _panel("Rows of the audit log", "", series, ["postgres"], "rows"),
        Panel(title="Processor", unit="", series={_short(name): share for name, share in shares.items() if share}),
    ]
    title = f"neuronetz-gateway: {soak.minutes:g} minutes at {soak.rate:g} requests a second"
    return drawing(rows, seconds=soak.phases.end_s, title=title)


def _panel(
    title: str, unit: str, series: Mapping[str, Series], subjects: Sequence[str], *names: str, scale: float = 1.0
) -> Panel:
    lines = {
        (_short(subject) if len(names) == 1 else name): points
        for subject in subjects
        for name in names
        if (points := series[subject].points(name, scale))
    }
    return Panel(title=title, unit=unit, series=lines)


def _short(subject: str) -> str:
    return subject.replace("dataplane", "data").replace("controlplane", "control").replace("worker ", "w")


def _share(series: Series) -> list[tuple[float, float]]:
    """Processor seconds a second."""
    points = series.points("cpu_s")
    return [(now_s, (now - then) / (now_s - then_s)) for (then_s, then), (now_s, now) in itertools.pairwise(points)]


def page(soak: Soak) -> str:
    """What the run has shown, in Markdown."""
    figures = soak.figures
    introduction = (
        f"{soak.minutes:g} minutes at {soak.rate:g} requests a second, begun on {soak.began_at}: "
        f"{figures['asked']} requests, {figures['left']} clients left before the end, {figures['faults']} faults of "
        f"backends, {figures['rotated']} keys replaced."
    )
    lines = [
        introduction,
        "",
        "| Process | Memory, warm | at the end | growth |",
        "|---|---|---|---|",
    ]
    found = changes(soak.series, soak.phases)
    for change in found:
        if change.name == "rss_bytes":
            growth = change.after / change.before - 1
            lines.append(
                f"| {change.subject} | {change.before / _MIB:.1f} MiB | {change.after / _MIB:.1f} MiB | {growth:+.1%} |"
            )
    lines += ["", "| Process | Count | before | afterwards |", "|---|---|---|---|"]
    lines += [
        f"| {change.subject} | {_NAMES[change.name].lower()} | {change.before:g} | {change.after:g} |"
        for change in found
        if change.name != "rss_bytes"
    ]
    lines += ["", "| Servers | before | at the end of the load | afterwards |", "|---|---|---|---|"]
    for subject, name, words, scale, digits in (
        ("redis", "used_bytes", "Redis, MiB", 1 / _MIB, 1),
        ("redis", "keys", "Redis, keys", 1.0, 0),
        ("postgres", "rows", "Postgres, rows of the audit log", 1.0, 0),
    ):
        at = [
            soak.series[subject].median(name, *when)
            for when in (soak.phases.before, soak.phases.last, soak.phases.after)
        ]
        lines.append(
            f"| {words} | " + " | ".join("–" if value is None else f"{value * scale:.{digits}f}" for value in at) + " |"
        )
    statuses = ", ".join(f"{status} × {count}" for status, count in sorted(figures["statuses"].items()))
    lines += ["", f"Answers: {statuses}. Upstream failures that the backends were told to have: {figures['kinds']}."]
    lines += ["", "Everything held." if not soak.wrong else "What did not hold: " + "; ".join(soak.wrong)]
    return "\n".join(lines) + "\n"
