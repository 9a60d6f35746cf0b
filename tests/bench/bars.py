"""Draws groups of horizontal bars as an SVG, without any library; colours and looks are those of ``panels``."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from tests.bench.panels import COLOURS, STYLE

_WIDTH, _LABEL, _VALUE = 760, 150, 80
_BAR, _GAP, _HEAD = 16, 26, 34


def drawing(groups: Mapping[str, Mapping[str, float]], *, title: str, unit: str) -> str:
    """One picture: each group has its heading and a bar for each of its values."""
    height = _HEAD + sum(_GAP + _BAR * len(bars) for bars in groups.values()) + 10
    most = max((value for bars in groups.values() for value in bars.values()), default=1.0) or 1.0
    names = list(dict.fromkeys(name for bars in groups.values() for name in bars))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f'<rect width="100%" height="100%" fill="#111217"/><text class="t" x="10" y="22">{escape(title)}</text>',
    ]
    y = _HEAD
    for group, bars in groups.items():
        parts.append(f'<text class="t" x="10" y="{y + 16}">{escape(group)}</text>')
        y += _GAP - 4
        for name, value in bars.items():
            length = (_WIDTH - _LABEL - _VALUE) * value / most
            colour = COLOURS[names.index(name) % len(COLOURS)]
            parts.append(f'<text x="{_LABEL - 6}" y="{y + 11}" text-anchor="end">{escape(name)}</text>')
            parts.append(f'<rect x="{_LABEL}" y="{y + 2}" width="{length:.1f}" height="{_BAR - 4}" fill="{colour}"/>')
            parts.append(f'<text x="{_LABEL + length + 5:.1f}" y="{y + 11}">{_shown(value)} {escape(unit)}</text>')
            y += _BAR
        y += 4
    return "\n".join([*parts, "</svg>\n"])


def _shown(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
