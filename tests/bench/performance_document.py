"""What a comparison has found, as tables for people and as part of a document."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.bench import bars
from tests.bench.cases import CASES, REPLY_NATIVE
from tests.bench.failover_document import filled
from tests.bench.figures import Figure, Samples
from tests.bench.goals import Goal, cost, per_core
from tests.bench.measure import Sample
from tests.bench.result import Result
from tests.bench.targets import CONTROL_PLANE, DATA_PLANE, DIRECT, NGINX, OURS, OURS_TWO, POSTGRES, REDIS

_MS, _MIB = 1000, 1024 * 1024
_RECORDS = {case.name: case.records for case in CASES}
COST_PLOT, LATENCY_PLOT = "performance-cost.svg", "performance-latency.svg"


def text_of(result: Result) -> str:
    """Everything, in Markdown."""
    sections = (
        _goals(result.goals),
        _costs(result.samples),
        _waits(result.samples),
        _roles(result.samples),
        _stages(result),
        _machine(result),
    )
    return "\n".join(section for section in sections if section)


def write(document: Path, result: Result) -> None:
    """Fills the document, and puts the plots beside it. Raises ``ValueError`` when it has no place for them."""
    plots = f"\n![CPU per request]({COST_PLOT})\n\n![Added latency]({LATENCY_PLOT})\n"
    document.write_text(filled(document.read_text(), text_of(result) + plots))
    document.with_name(COST_PLOT).write_text(bars.drawing(_cost_groups(result.samples), title=_COST_TITLE, unit="µs"))
    latency = _latency_groups(result.samples)
    document.with_name(LATENCY_PLOT).write_text(bars.drawing(latency, title=_LATENCY_TITLE, unit="ms"))


_COST_TITLE = "CPU per request at 32 connections"
_LATENCY_TITLE = "How long a 1 KB reply takes, p50, by connections"


def _goals(goals: Sequence[Goal]) -> str:
    lines = ["", "| Goal | Bound | Measured (lowest–highest round) | |", "|---|---|---|---|"]
    for goal in goals:
        sign = "≥" if goal.is_at_least else "≤"
        verdict = {True: "holds", False: "**missed**", None: "not measured"}[goal.holds]
        lines.append(f"| {goal.name} | {sign} {_short(goal.bound)} {goal.unit} | {_text(goal.figure)} | {verdict} |")
    notes = [f"*{goal.name}*: {goal.note}." for goal in goals if goal.note]
    return "\n".join([*lines, "", *notes, ""])


def _costs(samples: Samples) -> str:
    head = "| Case | Connections | Target | CPU µs/request | ÷ nginx | µs/record | requests/s per core | RSS MiB |"
    lines = ["", head, "|---|---|---|---|---|---|---|---|"]
    for case, connections, target in _ordered(samples):
        records = _RECORDS[case]
        costs = samples.figure(target, case, connections, cost)
        ratio = samples.paired((target, NGINX), case, connections, lambda one, other: cost(one) / cost(other))
        rss = samples.figure(target, case, connections, lambda one: next(iter(one.rss_bytes.values())) / _MIB)
        lines.append(
            f"| {case} | {connections} | {target} | {_text(costs)} | {_text(None if target == NGINX else ratio)} "
            f"| {_text(_divided(costs, records))} | {_median(samples.figure(target, case, connections, per_core))} "
            f"| {_median(rss)} |"
        )
    return "\n".join([*lines, ""])


def _waits(samples: Samples) -> str:
    head = (
        "| Case | Connections | Target | requests/s, wall | added p50 ms | added p99 ms | added first token p50 ms "
        "| p99 ms |"
    )
    lines = ["", head, "|---|---|---|---|---|---|---|---|"]
    for case, connections, target in _ordered(samples):
        added = [
            _text(samples.paired((target, DIRECT), case, connections, _difference_ms(value)))
            for value in ("p50_s", "p99_s", "first_p50_s", "first_p99_s")
        ]
        wall = _median(samples.figure(target, case, connections, lambda one: one.requests_per_s))
        lines.append(f"| {case} | {connections} | {target} | {wall} | {' | '.join(added)} |")
    return "\n".join([*lines, ""])


def _roles(samples: Samples) -> str:
    roles = (DATA_PLANE, REDIS, CONTROL_PLANE, POSTGRES)
    lines = [
        "",
        f"| Case | Connections | Target | {' | '.join(f'{role} µs' for role in roles)} | scripts in Redis µs |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for case, connections, target in _ordered(samples):
        if target in (OURS, OURS_TWO):
            cells = [_text(samples.figure(target, case, connections, _role(role))) for role in roles]
            script = _text(samples.figure(target, case, connections, lambda one: one.script_us))
            lines.append(f"| {case} | {connections} | {target} | {' | '.join(cells)} | {script} |")
    return "\n".join([*lines, ""])


def _stages(result: Result) -> str:
    if not result.stages:
        return ""
    lines = ["", "| Case | Stage | Share of the data plane's CPU | µs/request |", "|---|---|---|---|"]
    for case, stages in itertools.groupby(result.stages, key=lambda stage: stage.case):
        costs = result.samples.figure(OURS, case, 32, cost)
        for stage in stages:
            us = "–" if costs is None else f"{stage.share * costs.median:.1f}"
            lines.append(f"| {case} | {stage.name} | {stage.share:.0%} | {us} |")
    return "\n".join([*lines, ""])


def _machine(result: Result) -> str:
    said = ", ".join(f"{name} {value}" for name, value in result.machine.items())
    missing = "".join(f" Not measured: {name} ({why})." for name, why in result.missing.items())
    return f"\n{result.rounds} rounds; {said}.{missing}\n"


def _ordered(samples: Samples) -> Iterator[tuple[str, int, str]]:
    """Case, connections and target, as they were measured, without ``direct``."""
    for target, case, connections in samples.cells():
        if target != DIRECT:
            yield case, connections, target


def _difference_ms(value: str) -> Callable[[Sample, Sample], float]:
    return lambda one, other: (getattr(one, value) - getattr(other, value)) * _MS


def _role(role: str) -> Callable[[Sample], float | None]:
    return lambda one: one.cpu_us.get(role)


def _divided(figure: Figure | None, by: int) -> Figure | None:
    if figure is None or not by:
        return None
    return Figure(median=figure.median / by, low=figure.low / by, high=figure.high / by)


def _text(figure: Figure | None) -> str:
    if figure is None:
        return "–"
    return f"{_short(figure.median)} ({_short(figure.low)}–{_short(figure.high)})"


def _median(figure: Figure | None) -> str:
    return "–" if figure is None else _short(figure.median)


def _short(value: float) -> str:
    """Three digits that mean something."""
    if abs(value) >= 100:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}".rstrip("0").rstrip(".")


def _cost_groups(samples: Samples) -> dict[str, dict[str, float]]:
    groups: dict[str, dict[str, float]] = {}
    for target, case, connections in samples.cells():
        figure = samples.figure(target, case, connections, cost)
        if connections == 32 and target != DIRECT and figure is not None:
            groups.setdefault(case, {})[target] = figure.median
    return groups


def _latency_groups(samples: Samples) -> dict[str, dict[str, float]]:
    groups: dict[str, dict[str, float]] = {}
    for target, case, connections in samples.cells():
        figure = samples.figure(target, case, connections, lambda one: one.p50_s * _MS)
        if case == REPLY_NATIVE and figure is not None:
            groups.setdefault(f"{connections} connections", {})[target] = figure.median
    return groups
