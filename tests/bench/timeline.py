"""Timelines as text: a character a second, so that a run can be read from left to right."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

_BARS = " ▁▂▃▄▅▆▇█"
_LABEL_WIDTH = 9


def axis(start_s: int, end_s: int) -> str:
    """Seconds, every ten written out."""
    marks = [" "] * (end_s - start_s + 4)
    for second in range(start_s, end_s + 1):
        if second % 10 == 0:
            text = str(second)
            marks[second - start_s : second - start_s + len(text)] = text
    return _line("seconds", "".join(marks))


def bars(label: str, moments_s: Iterable[float], *, start_s: int, end_s: int, full: int) -> str:
    """How often something happened in each second; ``full`` in a second is the highest bar."""
    counts = [0] * (end_s - start_s)
    for moment_s in moments_s:
        if start_s <= moment_s < end_s:
            counts[math.floor(moment_s) - start_s] += 1
    return _line(label, "".join(_bar(count, full) for count in counts))


def states(label: str, changes: Sequence[tuple[float, str]], *, start_s: int, end_s: int) -> str:
    """What held in each second: the mark of the last change before its end; the first change is the beginning.

    Of several changes within a second the first is shown: a probe that was answered at once stays visible.
    """
    line: list[str] = []
    for second in range(start_s, end_s):
        within = [mark for moment_s, mark in changes if second <= moment_s < second + 1]
        earlier = [mark for moment_s, mark in changes if moment_s < second]
        line.append(within[0] if within else earlier[-1] if earlier else " ")
    return _line(label, "".join(line))


def _bar(count: int, full: int) -> str:
    if not count:
        return _BARS[0]
    return _BARS[min(len(_BARS) - 1, max(1, round(count / full * (len(_BARS) - 1))))]


def _line(label: str, text: str) -> str:
    return f"{label:{_LABEL_WIDTH}}{text}".rstrip()
