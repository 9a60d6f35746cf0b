"""JSON read strictly: one meaning per body, whoever reads it.

Go, where Ollama reads its bodies, takes the last of repeated keys, merges repeated objects and matches the fields of
structs without regard to case; others do not. So a body with a repeated key (compared after unescaping, at any depth)
is refused here, and ``Closed`` refuses keys that equal a field of ours only under Go's case folding.

``parse`` is a single pass of the standard library's C scanner, whose hook sees the pairs of each object before they
become a dict: 9 to 10 µs for a chat body of 1 KB. Decoding with msgspec and comparing the number of pairs in the text
with that in the result takes the same time, but msgspec needs 13 µs for a number such as ``1e300``: half a second for
a body full of them. The 256 KiB that cost most here are read or refused within 50 ms.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate
from typing import Any, NoReturn

import msgspec

from dataplane.errors import RequestError

MAX_DEPTH = 64
# Longer than any shortest form of a double or of a 64-bit integer; bounds the time that one conversion takes.
MAX_NUMBER_CHARACTERS = 40

_MIN_INTEGER = -(2**63)
_MAX_INTEGER = 2**64 - 1
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_STEPS = bytes.maketrans(b"{[}]", b"\x01\x01\xff\xff")
_NO_BRACKETS = bytes(code for code in range(256) if code not in b"{}[]")
_ENCODER = msgspec.json.Encoder()
_FAULT = re.compile(r"(?P<rule>.*?)(?: - at `\$\.?(?P<path>[^`]*)`)?", re.DOTALL)
_RULE = re.compile(r"(Expected|Object missing required field) ")


class Dropped:
    """Fields of a request that are not passed on: names of a list of ours, and how many others."""

    __slots__ = ("_names", "unknown")

    def __init__(self) -> None:
        self._names: set[str] = set()
        self.unknown = 0

    def add(self, name: str) -> None:
        """Notes a field by its name; only names of our own lists come here, never a client's."""
        self._names.add(name)

    @property
    def names(self) -> tuple[str, ...]:
        """The noted names in a stable order."""
        return tuple(sorted(self._names)) if self._names else ()

    def __repr__(self) -> str:
        return f"Dropped(names={self.names}, unknown={self.unknown})"


class Closed:
    """The keys of a closed struct: those that are read, those that are known and ignored, and its closed members.

    Members hold an object or an array of objects; a value of another type is left to ``typed``.
    """

    def __init__(
        self, struct: type[msgspec.Struct], *, ignored: Iterable[str] = (), members: Mapping[str, Closed] | None = None
    ) -> None:
        self._read = frozenset(field.encode_name for field in msgspec.structs.fields(struct))
        self._ignored = frozenset(ignored)
        self._folded = {fold(name): name for name in self._read | self._ignored}
        self._members = tuple((members or {}).items())
        self.struct = struct

    @property
    def ignored(self) -> tuple[str, ...]:
        """Names that are known and dropped."""
        return tuple(sorted(self._ignored))

    @property
    def members(self) -> Mapping[str, Closed]:
        """The closed members, by field."""
        return dict(self._members)

    def check(self, value: Mapping[str, Any], dropped: Dropped) -> None:
        """Notes what is dropped; raises ``RequestError`` for a key that only folding makes equal to a known one."""
        if not self._read.issuperset(value):
            self._drop(value.keys() - self._read, value, dropped)
        for name, member in self._members:
            child = value.get(name)
            if type(child) is dict:
                member.check(child, dropped)
            elif type(child) is list:
                for item in child:
                    if type(item) is dict:
                        member.check(item, dropped)

    def _drop(self, keys: Iterable[str], value: Mapping[str, Any], dropped: Dropped) -> None:
        for key in keys:
            if key in self._ignored:
                if value[key] is not None:
                    dropped.add(key)
            elif (known := self._folded.get(fold(key))) is not None:
                raise RequestError(f"a field differs from {known} only in case", param=known)
            else:
                dropped.unknown += 1

    def __repr__(self) -> str:
        return f"Closed({', '.join(sorted(self._read))})"


def parse(body: bytes) -> dict[str, Any]:
    """The object in a body.

    Raises ``RequestError`` for everything that is not exactly one JSON object in UTF-8, for repeated keys, nesting
    beyond ``MAX_DEPTH``, integers beyond 64 bits, numbers that overflow a double, and lone surrogates.
    """
    value = _scan(body)
    if type(value) is not dict:
        raise RequestError("the body must be a JSON object")
    # The count of opening brackets is cheaper, and an upper bound.
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH and nesting(without_strings(body)) > MAX_DEPTH:
        raise RequestError(f"the body is nested deeper than {MAX_DEPTH} levels")
    if b"\\" in body and b"\\u" in body:
        _check_surrogates(value)
    return value


def parse_object(text: str, field: str) -> dict[str, Any]:
    """The object in a text within a body, such as the arguments of a tool call; raises ``RequestError`` as above."""
    try:
        return parse(text.encode())
    except RequestError as fault:
        raise RequestError(f"{field} must hold a JSON object without repeated keys", param=field) from fault


def read_body[T](body: bytes, closed: Closed, kind: type[T]) -> tuple[T, Dropped]:
    """The struct of a body and what of the body is not in it. Raises ``RequestError``."""
    value = parse(body)
    dropped = Dropped()
    closed.check(value, dropped)
    return typed(value, kind), dropped


def typed[T](value: Mapping[str, Any], kind: type[T]) -> T:
    """The struct of a parsed object; raises ``RequestError`` naming the field and the rule."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as fault:
        raise _explained(str(fault)) from None


def encoded(value: Any) -> bytes:
    """A parsed value in our own spelling; ``parse`` has refused everything that cannot be written."""
    return _ENCODER.encode(value)


def without_strings(raw: bytes) -> bytes:
    """Valid JSON without its strings, quotes included: what is left are brackets, separators and other literals."""
    return _STRING.sub(b"", raw)


def nesting(bare: bytes) -> int:
    """How many levels deep the brackets are nested in what ``without_strings`` has left of valid JSON."""
    steps = bare.translate(_STEPS, _NO_BRACKETS)
    # As signed bytes: 1 for an opening bracket, -1 for a closing one.
    return max(accumulate(memoryview(steps).cast("b")), default=0)


def fold(key: str) -> str:
    """A key under the folding that Go's encoding/json matches ASCII field names with.

    Go compares by ``unicode.SimpleFold``; beside upper case, only U+017F (long s) and U+212A (the Kelvin sign) fold to
    ASCII letters. Lower-casing covers all but the first of them.
    """
    return key.lower().replace("\u017f", "s")


def _scan(body: bytes) -> Any:
    try:
        text = body.decode().strip(" \t\n\r")
        value, end = _scan_once(text, 0)
    except RecursionError as fault:
        raise RequestError(f"the body is nested deeper than {MAX_DEPTH} levels") from fault
    except (ValueError, StopIteration) as fault:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise RequestError("the body must be valid JSON in UTF-8") from fault
    if end != len(text):
        raise RequestError("the body must be valid JSON in UTF-8")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise RequestError("the body repeats a key")
    return value


def _integer(text: str) -> int:
    if len(text) <= MAX_NUMBER_CHARACTERS:
        value = int(text)
        if _MIN_INTEGER <= value <= _MAX_INTEGER:
            return value
    raise RequestError("the body holds an integer beyond 64 bits")


def _float(text: str) -> float:
    if len(text) <= MAX_NUMBER_CHARACTERS:
        value = float(text)
        if math.isfinite(value):
            return value
    raise RequestError("the body holds a number that is too large or too long")


def _constant(_: str) -> NoReturn:
    raise RequestError("the body must be valid JSON in UTF-8")


# The scanner itself: ``JSONDecoder.decode`` spends a microsecond on two regular expressions for white space.
_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant)
_scan_once: Callable[[str, int], tuple[Any, int]] = _DECODER.scan_once  # type: ignore[attr-defined]  # not in typeshed


def _check_surrogates(root: Any) -> None:
    try:
        _ENCODER.encode(root)
    except UnicodeEncodeError as fault:
        raise RequestError("the body must be valid JSON in UTF-8") from fault


def _explained(fault: str) -> RequestError:
    match = _FAULT.fullmatch(fault)
    rule, path = (match["rule"], match["path"]) if match else (fault, None)
    # Only the wordings that consist of our own types, rules and field names; msgspec has others that quote values.
    words = rule.replace("`", "").replace(" | null", "").lower() if _RULE.match(rule) else "not acceptable"
    return RequestError(f"{path}: {words}" if path else words, param=path or None)
