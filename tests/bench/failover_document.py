"""What a run of ``tests.bench.failover`` has shown, as part of a document: figures, and a timeline of each scenario."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.bench import timeline
from tests.bench.course import NOTICED_S, Asked, Course

_MARKS = {"open": "█", "half_open": "◆", "closed": "·"}

_INTRODUCTION = """
One data plane and two mock Ollamas, {rate} requests a second of two tenants, asked when they are due however long
others take; half of them streams, half wanted whole. A reply takes {reply_s} s ({records} records). The first backend
has the higher priority and is struck down at second 0. Deadlines of this run: connect {connect_s} s, first record
{first_record_s} s, pause between two records {idle_s} s. The defaults are 5, 600 and 120 s, and what waits for a
deadline here waits as long there.

Of all requests that were asked from second 0 on or were under way then: *failed*, an error instead of a reply;
*broken off*, a stream that had begun; *late*, a proper reply more than {noticed_s} s later than usual.

| First backend | Requests | Failed | Broken off | Late | Seen by requests of | Breaker opened | Probes | Closed |
|---|---|---|---|---|---|---|---|---|
"""

_LEGEND = """
One character is one second, the highest bar {rate} requests. A request stands in the second in which it was asked, in
the row of the backend whose reply it got. Breaker: `·` closed, `█` open, `◆` a probe.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What a run was made with."""

    requests_per_s: int
    calm_s: int
    records: int
    record_delay_ms: int
    connect_timeout_s: float
    first_record_s: float
    idle_s: float


def filled(document: str, run: str, *, mark: str = "run") -> str:
    """The document with a run between its marks. Raises ``ValueError`` when it has none."""
    begin = document.index("\n", document.index(f"<!-- {mark}:")) + 1
    return document[:begin] + run + document[document.index(f"<!-- /{mark} -->", begin) :]


def run_of(courses: Mapping[str, Course], traffic: Traffic) -> str:
    """What a run has shown, in Markdown."""
    introduction = _INTRODUCTION.format(
        rate=traffic.requests_per_s,
        reply_s=traffic.records * traffic.record_delay_ms / 1000,
        records=traffic.records,
        connect_s=traffic.connect_timeout_s,
        first_record_s=traffic.first_record_s,
        idle_s=traffic.idle_s,
        noticed_s=NOTICED_S,
    )
    figures = "\n".join(_figures(name, course) for name, course in courses.items())
    legend = _LEGEND.format(rate=traffic.requests_per_s)
    timelines = "\n".join(_timeline(course, traffic) for course in courses.values())
    return f"{introduction}{figures}\n{legend}\n{timelines}\n"


def _figures(name: str, course: Course) -> str:
    noticed = [_since(course.noticed(outcome)) for outcome in ("failed", "broken", "late")]
    moments_s = sorted(one.at_s for kind in noticed for one in kind)
    cells = (
        name,
        str(len(_since(course.asked))),
        _counted(noticed[0]),
        *(str(len(kind)) for kind in noticed[1:]),
        f"{moments_s[0]:.1f} to {moments_s[-1]:.1f} s" if moments_s else "–",
        _moments(course.came_into("open")[:1]),
        _moments(course.came_into("half_open")),
        _moments(course.came_into("closed")),
    )
    return f"| {' | '.join(cells)} |"


def _counted(failed: Sequence[Asked]) -> str:
    """How many failed, and with which statuses."""
    statuses = ", ".join(str(status) for status in sorted({one.status for one in failed}))
    return f"{len(failed)} ({statuses})" if failed else "0"


def _since(asked: Sequence[Asked]) -> list[Asked]:
    """Those that the blow could meet: asked after it, or under way when it came."""
    return [one for one in asked if one.at_s + one.took_s > 0]


def _moments(moments_s: Sequence[float]) -> str:
    return ", ".join(f"{moment_s:.2f} s" for moment_s in moments_s) or "–"


def _timeline(course: Course, traffic: Traffic) -> str:
    start_s, end_s = -traffic.calm_s, course.scenario.watched_s
    rows = {
        "first": course.answered_by("first"),
        "second": course.answered_by("second"),
        "late": course.noticed("late"),
        "broken": course.noticed("broken"),
        "failed": course.noticed("failed"),
    }
    lines = [timeline.axis(start_s, end_s)]
    for label, asked in rows.items():
        moments_s = [one.at_s for one in asked]
        lines.append(timeline.bars(label, moments_s, start_s=start_s, end_s=end_s, full=traffic.requests_per_s))
    changes = [(float(start_s), _MARKS["closed"])]
    changes += [(at_s, _MARKS[state]) for at_s, state in course.breaker]
    lines.append(timeline.states("breaker", changes, start_s=start_s, end_s=end_s))
    return "\n".join((f"### {course.scenario.title}\n", "```text", *lines, "```", ""))
