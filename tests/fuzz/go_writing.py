"""How Go's encoding/json writes what it has read: that is how tools and arguments stand in a prompt.

Source: Go encoding/json encode.go (floatEncoder, appendString); ollama ``model/renderers`` for what is put around it:
``cogito.go`` indents tools by four spaces, ``json.go`` adds a space behind each colon and comma.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

INDENT = 4
_ESCAPED = {code: f"\\u{code:04x}" for code in (*range(0x20), *map(ord, "<>&\u2028\u2029"))}
_ESCAPED |= {ord('"'): '\\"', ord("\\"): "\\\\", 8: "\\b", 9: "\\t", 10: "\\n", 12: "\\f", 13: "\\r"}


def written(value: Any) -> str:
    """Compact."""
    return _write(value, "", "", ",", ":")


def spaced(value: Any) -> str:
    """With a space behind each colon and comma."""
    return _write(value, "", "", ", ", ": ")


def indented(value: Any) -> str:
    """Each member and element on a line of its own."""
    return _write(value, "\n", " " * INDENT, ",", ": ")


def number(value: float) -> str:
    """A float64."""
    if value == 0:
        return "-0" if str(value)[0] == "-" else "0"
    digits, _, exponent = f"{float(value)!r}".partition("e")
    if 1e-6 <= abs(value) < 1e21:
        return _plain(float(value))
    power = int(exponent) if exponent else 0
    mantissa = digits.removesuffix(".0")
    return f"{mantissa}e{power:+03d}" if abs(power) > 9 else f"{mantissa}e{power:+d}"


def _plain(value: float) -> str:
    text = format(Decimal(repr(value)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _write(value: Any, newline: str, indent: str, comma: str, colon: str, level: int = 0) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, str):
        return f'"{value.translate(_ESCAPED)}"'
    start, end = newline + indent * (level + 1), newline + indent * level
    if isinstance(value, dict):
        members = [
            start
            + _write(str(key), "", "", comma, colon)
            + colon
            + _write(item, newline, indent, comma, colon, level + 1)
            for key, item in value.items()
        ]
        return "{" + comma.join(members) + end + "}" if members else "{}"
    elements = [start + _write(item, newline, indent, comma, colon, level + 1) for item in value]
    return "[" + comma.join(elements) + end + "]" if elements else "[]"
