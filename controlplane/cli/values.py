"""Texts of the command line as values: moments, spans of time, lists, pairs, JSON, enum values.

The parsers are pure and raise ``ValueError`` with the rule that was broken; the click types around them turn that into
wrong usage.
"""

import base64
import json
import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import click

_NANOS_PER_S = 1_000_000_000
_UNIT_NANOS = {
    "w": 7 * 86400 * _NANOS_PER_S,
    "d": 86400 * _NANOS_PER_S,
    "h": 3600 * _NANOS_PER_S,
    "m": 60 * _NANOS_PER_S,
    "s": _NANOS_PER_S,
    "ms": 1_000_000,
}
_SPAN = re.compile(r"(?:\d+(?:\.\d{1,9})?(?:ms|[wdhms]))+", re.ASCII)
_SPAN_PART = re.compile(r"(?P<whole>\d+)(?:\.(?P<fraction>\d{1,9}))?(?P<unit>ms|[wdhms])", re.ASCII)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_RFC_3339 = re.compile(
    r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(?:\.(?P<fraction>\d{1,9}))?(?:[Zz]|[+-]\d{2}:\d{2})", re.ASCII
)
# The largest span that google.protobuf.Duration allows (10 000 years).
_MAX_SPAN_NANOS = 315_576_000_000 * _NANOS_PER_S

type SecondsNanos = tuple[int, int]


def parse_duration(text: str) -> SecondsNanos:
    """``3600s``, ``90m``, ``1h30m``, ``1.5h``, ``30d`` or ``0`` as whole seconds and nanoseconds."""
    text = text.strip().lower()
    if text == "0":
        return 0, 0
    if _SPAN.fullmatch(text) is None:
        raise ValueError("must be a span of time with units, like 3600s, 1h30m or 30d")
    nanos = 0
    for part in _SPAN_PART.finditer(text):
        unit_nanos = _UNIT_NANOS[part["unit"]]
        fraction = part["fraction"] or ""
        nanos += int(part["whole"]) * unit_nanos + int(fraction or 0) * unit_nanos // 10 ** len(fraction)
    if nanos > _MAX_SPAN_NANOS:
        raise ValueError("must be at most 10000 years")
    return divmod(nanos, _NANOS_PER_S)


def parse_timestamp(text: str, now_s: float) -> SecondsNanos:
    """An RFC 3339 moment, a date (its first moment in UTC) or ``+SPAN`` from now, as Unix seconds and nanoseconds."""
    text = text.strip()
    if text.startswith("+"):
        seconds, nanos = parse_duration(text[1:])
        moment = int(now_s) + seconds
        if moment > datetime.max.replace(tzinfo=UTC).timestamp():
            raise ValueError("must be before the year 10000")
        return moment, nanos
    if _DATE.fullmatch(text):
        text += "T00:00:00Z"
    found = _RFC_3339.fullmatch(text)
    if found is None:
        raise ValueError("must be a moment like 2027-01-31T00:00:00Z, a date like 2027-01-31, or a span like +30d")
    fraction = found["fraction"] or ""
    moment_text = text.upper().replace("." + fraction, "") if fraction else text.upper()
    try:
        moment = int(datetime.fromisoformat(moment_text).timestamp())
    except (ValueError, OverflowError):
        raise ValueError("is no moment of the calendar") from None
    return moment, int(fraction.ljust(9, "0")) if fraction else 0


def split_list(text: str) -> tuple[str, ...]:
    """The items between commas without the space around them; an empty text is an empty list."""
    return tuple(item for item in (part.strip() for part in text.split(",")) if item)


class Parsed(click.ParamType[Any]):
    """A click type around a pure parser."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The parsed value; the parser's ``ValueError`` becomes wrong usage."""
        try:
            return self._parse(str(value))
        except ValueError as fault:
            self.fail(f"{str(value)!r} {fault}", param, ctx)


class Listed(click.ParamType[Any]):
    """A list with commas, each of whose items has a type of its own."""

    def __init__(self, item: click.ParamType[Any]) -> None:
        self.name = f"{item.name},…"
        self._item = item

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        """The item's own placeholder, with a comma."""
        inner = self._item.get_metavar(param, ctx) or self._item.name.upper()
        return f"{inner},…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The converted items as a tuple."""
        if isinstance(value, tuple):  # click converts a default again
            return value
        return tuple(self._item.convert(item, param, ctx) for item in split_list(str(value)))


class EnumChoice(click.Choice[str]):
    """Names of enum values, converted to their numbers."""

    def __init__(self, numbers: Mapping[str, int]) -> None:
        super().__init__(tuple(numbers), case_sensitive=False)
        self._numbers = numbers

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number of the chosen value."""
        return self._numbers[super().convert(value, param, ctx)]


def _parse_pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not name or not sign:
        raise ValueError("must be NAME=VALUE")
    return name, value


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        # Several well-known types are plain texts in JSON (durations, field masks): no quotes are asked for.
        return text


def _parse_integer(text: str, least: int, most: int) -> int:
    try:
        number = int(text)
    except ValueError:
        raise ValueError("must be a whole number") from None
    if not least <= number <= most:
        raise ValueError(f"must be between {least} and {most}")
    return number


def _parse_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise ValueError("must be base64") from None


def integer(bits: int, *, signed: bool) -> click.ParamType[Any]:
    """A whole number that fits into ``bits`` bits."""
    least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return Parsed("n", lambda text: _parse_integer(text, least, most))


TIMESTAMP = Parsed("when", lambda text: parse_timestamp(text, time.time()))
DURATION = Parsed("span", parse_duration)
PAIR = Parsed("name=value", _parse_pair)
BASE64 = Parsed("base64", _parse_base64)
JSON = Parsed("json", _parse_json)
