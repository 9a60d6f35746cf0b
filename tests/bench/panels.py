"""Draws the panels of a Grafana dashboard as one SVG: time series with their legends, without any library."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

Points = Sequence[tuple[float, float]]

COLUMNS, WIDTH, HEIGHT, TITLE = 4, 310, 190, 26
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 24, 50
LEGENDS, LEGEND_CHARACTERS, TICKS = 6, 15, 6
COLOURS = ("#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#8ab8ff", "#96d98d")
_UNITS: Mapping[str, str] = {"s": "s", "reqps": "/s", "MiB": "MiB"}
STYLE = (
    "text{font:10px sans-serif;fill:#ccccdc}.t{font-weight:600;font-size:11px}.r{font-size:14px;font-weight:600}"
    ".g{stroke:#2c3235;stroke-width:1}.l{fill:none;stroke-width:1.4;stroke-linejoin:round}.m{fill:#8e8e8e}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel with its series by legend; points are seconds since the beginning and values."""

    title: str
    unit: str
    series: Mapping[str, Points]


def drawing(rows: Mapping[str, Sequence[Panel]], *, seconds: float, title: str) -> str:
    """The whole dashboard."""
    height = 34 + sum(TITLE + HEIGHT * math.ceil(len(panels) / COLUMNS) for panels in rows.values())
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {COLUMNS * WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f'<rect width="100%" height="100%" fill="#111217"/><text class="t" x="10" y="22">{escape(title)}</text>',
    ]
    y = 34
    for name, panels in rows.items():
        parts.append(f'<text class="r" x="10" y="{y + 18}">{escape(name)}</text>')
        y += TITLE
        for number, panel in enumerate(panels):
            column, row = number % COLUMNS, number // COLUMNS
            parts.append(f'<g transform="translate({column * WIDTH},{y + row * HEIGHT})">{_panel(panel, seconds)}</g>')
        y += HEIGHT * math.ceil(len(panels) / COLUMNS)
    return "\n".join([*parts, "</svg>\n"])


def _panel(panel: Panel, seconds: float) -> str:
    highest = max((value for points in panel.series.values() for _, value in points), default=0.0)
    top = _round_up(highest)
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    parts = [
        f'<rect x="3" y="3" width="{WIDTH - 6}" height="{HEIGHT - 6}" rx="3" fill="#181b1f" stroke="#2c3235"/>',
        f'<text class="t" x="10" y="18">{escape(panel.title)}</text>',
    ]
    for step in range(3):
        value, level = top * step / 2, TOP + height - height * step / 2
        parts.append(f'<path class="g" d="M{LEFT} {level:g}h{width}"/>')
        parts.append(
            f'<text class="m" x="{LEFT - 4}" y="{level + 3:g}" text-anchor="end">{_text(value, panel.unit)}</text>'
        )
    minutes = int(seconds) // 60
    for minute in range(0, minutes + 1, math.ceil(minutes / TICKS) or 1):
        x = LEFT + width * minute * 60 / seconds
        parts.append(f'<text class="m" x="{x:.0f}" y="{TOP + height + 12}" text-anchor="middle">{minute} min</text>')
    for number, (legend, points) in enumerate(panel.series.items()):
        colour = COLOURS[number % len(COLOURS)]
        parts += [
            f'<path class="l" stroke="{colour}" d="{path}"/>'
            for path in _paths(points, seconds=seconds, top=top, width=width, height=height)
        ]
        if number < LEGENDS:
            x, y = 10 + (number % 3) * (WIDTH - 16) // 3, HEIGHT - 24 + (number // 3) * 12
            shown = legend if len(legend) <= LEGEND_CHARACTERS else legend[: LEGEND_CHARACTERS - 1] + "…"
            parts.append(f'<rect x="{x}" y="{y - 6}" width="8" height="3" fill="{colour}"/>')
            parts.append(f'<text x="{x + 11}" y="{y}">{escape(shown)}</text>')
    return "".join(parts)


def _paths(points: Points, *, seconds: float, top: float, width: int, height: int) -> list[str]:
    """One path for each stretch without a gap."""
    paths: list[str] = []
    last_s = -math.inf
    step_s = min((after - before for (before, _), (after, _) in itertools.pairwise(points)), default=1.0)
    for at_s, value in points:
        x, y = LEFT + width * at_s / seconds, TOP + height - height * min(value, top) / top
        if at_s - last_s > 1.5 * step_s:
            paths.append(f"M{x:.1f} {y:.1f}")
        else:
            paths[-1] += f"L{x:.1f} {y:.1f}"
        last_s = at_s
    return [path if "L" in path else path + "h1" for path in paths]


def _round_up(value: float) -> float:
    if value <= 0:
        return 1.0
    magnitude = 10.0 ** math.floor(math.log10(value))
    return next(step * magnitude for step in (1, 2, 4, 6, 8, 10) if step * magnitude >= value * 0.999)


def _text(value: float, unit: str) -> str:
    if unit == "s" and 0 < value < 1:
        return f"{value * 1000:g} ms"
    if value >= 1000 and unit != "s":
        return f"{value / 1000:g} k{_UNITS.get(unit, '')}"
    return f"{value:g} {_UNITS.get(unit, '')}".strip()
