"""A history for people: what was struck when, and what became of the requests meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from tests.faults.nemesis.history import Event

_STEP_S = 1.0


def timeline(events: Sequence[Event]) -> Iterator[str]:
    """A line for each second and each fault."""
    start_s = events[0]["at_s"]
    struck = {event["number"]: event for event in events if event["event"] == "struck"}
    lines: list[tuple[float, str]] = []
    answers: dict[int, Counter[int]] = {}
    for event in events:
        at_s = event["at_s"] - start_s
        match event["event"]:
            case "struck":
                lines.append((at_s, f"┌ #{event['number']:<3} {event['kind']}: {event['where']}"))
            case "healed":
                lines.append((at_s, f"└ #{event['number']:<3} {struck[event['number']]['kind']} is over"))
            case "revoked":
                lines.append((at_s, f"  key revoked{', pending' if event['is_pending'] else ''}"))
            case "healed all" | "serves again" | "agrees":
                lines.append((at_s, f"= {event['event']}"))
            case "answered":
                answers.setdefault(int(at_s / _STEP_S), Counter())[event["status"]] += 1
    for second, statuses in answers.items():
        told = "  ".join(f"{status or 'none'}×{count}" for status, count in sorted(statuses.items()))
        lines.append((second * _STEP_S + _STEP_S, f"                                             {told}"))
    yield from (f"{at_s:7.2f} s {text}" for at_s, text in sorted(lines))


def summary(events: Sequence[Event], wrong: Sequence[str]) -> dict[str, Any]:
    """A history for programs."""
    began = next(event for event in events if event["event"] == "began")
    moments = {
        event["event"]: event["at_s"] for event in events if event["event"] in ("healed all", "serves again", "agrees")
    }
    return {
        "seed": began["seed"],
        "duration_s": began["duration_s"],
        "faults": dict(Counter(f"{e['kind']} {e['where']}" for e in events if e["event"] == "struck")),
        "requests": sum(event["event"] == "asked" for event in events),
        "statuses": dict(sorted(Counter(str(e["status"]) for e in events if e["event"] == "answered").items())),
        "ends": dict(sorted(Counter(e["end"] for e in events if e["event"] == "answered").items())),
        "upstream": sum(event["event"] == "upstream" for event in events),
        "outcomes": dict(sorted(Counter(e["outcome"] for e in events if e["event"] == "row").items())),
        "revoked": sum(event["event"] == "revoked" for event in events),
        "served_again_after_s": _between(moments, "healed all", "serves again"),
        "agreed_after_s": _between(moments, "healed all", "agrees"),
        "wrong": list(wrong),
    }


def _between(moments: dict[str, float], start: str, end: str) -> float | None:
    return round(moments[end] - moments[start], 2) if {start, end} <= moments.keys() else None
