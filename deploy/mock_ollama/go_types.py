"""Descriptions of Go types, and how a JSON value is stored into one (see `go_json` for the rules).

A struct comes out as a plain dict of the fields that hold something: an absent field is Go's zero value.
"""

import abc
import base64
import re
from collections.abc import Callable
from typing import Final

from deploy.mock_ollama.go_json import GoJSONError, GoObject, OversizedNumber, WideInteger, fold, parse

_ZEROS: Final[dict[str, object]] = {"string": "", "bool": False, "int": 0, "float64": 0}
_BASE64_TAIL: Final = re.compile(r"[A-Za-z0-9+/]*={0,2}")


class Faults:
    """The first type fault met while one body is stored (Go keeps it and reads on)."""

    def __init__(self) -> None:
        self.first: str | None = None

    def __repr__(self) -> str:
        return f"Faults(first={self.first!r})"

    def mismatch(self, value: object, go_type: str, where: tuple[str, str]) -> None:
        """Remember that `value` does not fit `go_type`; `where` is (struct name, dotted field path)."""
        if self.first is None:
            field = f"Go struct field {'.'.join(where)}" if where[1] else "Go value"
            self.first = f"json: cannot unmarshal {_kind(value, go_type)} into {field} of type {go_type}"

    def note(self, fault: str) -> None:
        """Remember another fault that Go reports at the end."""
        self.first = self.first or fault


class GoType(abc.ABC):
    """A Go type that a JSON value can be stored into."""

    name: str
    # What an element of a slice holds before anything was stored; None: nothing that could be told from absence.
    zero: object = None

    @abc.abstractmethod
    def store(self, value: object, old: object, faults: Faults, where: tuple[str, str]) -> object:
        """Return what the variable holds after `value` was read over `old` (None: the zero value)."""


class Plain(GoType):
    """string, bool, int or float64: null changes nothing."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.zero = _ZEROS[name]

    def store(self, value: object, old: object, faults: Faults, where: tuple[str, str]) -> object:
        """See GoType."""
        if value is None:
            return old
        if isinstance(value, bool):
            fits = self.name == "bool"
        elif isinstance(value, OversizedNumber):
            fits = False
        elif isinstance(value, WideInteger) and self.name == "int":
            fits, value = -(2**63) <= value.exact < 2**63, value.exact
        elif isinstance(value, int):
            fits = self.name in {"int", "float64"}
        elif isinstance(value, float):
            fits = self.name == "float64"
        else:
            fits = isinstance(value, str) and self.name == "string"
        if not fits:
            faults.mismatch(value, self.name, where)
            return old
        return value


class AnyValue(GoType):
    """`any`: the new value replaces the old one."""

    name = "interface {}"

    def store(self, value: object, old: object, faults: Faults, where: tuple[str, str]) -> object:  # noqa: ARG002 - the interface
        """See GoType."""
        return _converted(value, faults, where)


class RawMessage(GoType):
    """json.RawMessage: the bytes of the value, whatever they are; they replace the old ones."""

    name = "json.RawMessage"

    def store(self, value: object, old: object, faults: Faults, where: tuple[str, str]) -> object:  # noqa: ARG002 - the interface
        """See GoType; the value stands for its bytes."""
        return value


class Bytes(GoType):
    """[]byte: standard base64, or an array of numbers below 256."""

    name = "[]uint8"

    def store(self, value: object, old: object, faults: Faults, where: tuple[str, str]) -> object:
        """See GoType."""
        if value is None:
            return None
        if isinstance(value, str):
            try:
                return _base64(value)
            except GoJSONError as fault:
                faults.note(str(fault))
                return old
        if isinstance(value, list):
            before = old if isinstance(old, bytes) else b""
            return bytes(
                self._byte(item, before[index] if index < len(before) else 0, faults, where)
                for index, item in enumerate(value)
            )
        faults.mismatch(value, self.name, where)
        return old

    def _byte(self, value: object, old: int, faults: Faults, where: tuple[str, str]) -> int:
        if value is None:
            return old
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 256:
            return value
        faults.mismatch(value, "uint8", where)
        return old


class GoSlice(list[object]):
    """A slice: its elements, and those beyond its length that its array still holds."""

    __slots__ = ("hidden",)

    def __init__(self, elements: list[object], hidden: list[object]) -> None:
        super().__init__(elements)
        self.hidden = hidden


class Slice(GoType):
    """[]T: elements read before are read over, not replaced (Go issue 21092); an empty array starts anew."""

    def __init__(self, element: GoType) -> None:
        self.name = f"[]{element.name}"
        self._element = element

    def store(self, value: object, old: object, faults: Faults, where: tuple[str, str]) -> object:
        """See GoType."""
        if value is None:
            return None
        if not isinstance(value, list):
            faults.mismatch(value, self.name, where)
            return old
        before = [*old, *old.hidden] if isinstance(old, GoSlice) and value else []
        read: list[object] = []
        for index, item in enumerate(value):
            stored = self._element.store(item, before[index] if index < len(before) else None, faults, where)
            read.append(self._element.zero if stored is None else stored)
        return GoSlice(read, before[len(read) :])


class Map(GoType):
    """map[string]any: exact keys; a second object adds to the first."""

    name = "map[string]interface {}"

    def store(self, value: object, old: object, faults: Faults, where: tuple[str, str]) -> object:
        """See GoType."""
        if value is None:
            return None
        if not isinstance(value, dict):
            faults.mismatch(value, self.name, where)
            return old
        new = {key: _converted(item, faults, where) for key, item in value.items()}
        return {**(old if isinstance(old, dict) else {}), **new}


class Pointer(GoType):
    """*T: null makes it nil."""

    def __init__(self, element: GoType) -> None:
        self.name = element.name
        self._element = element

    def store(self, value: object, old: object, faults: Faults, where: tuple[str, str]) -> object:
        """See GoType."""
        return None if value is None else self._element.store(value, old, faults, where)


class Struct(GoType):
    """A struct with JSON field names."""

    def __init__(self, name: str, fields: dict[str, GoType]) -> None:
        self.name = name
        self.zero = {}
        self._exact = fields
        self._folded = {fold(field): field for field in reversed(fields)}

    def store(self, value: object, old: object, faults: Faults, where: tuple[str, str]) -> object:
        """See GoType."""
        if value is None:
            return old
        if not isinstance(value, GoObject):
            faults.mismatch(value, f"api.{self.name}", where)
            return old
        after: dict[str, object] = dict(old) if isinstance(old, dict) else {}
        path = where[1] + "." if where[1] else ""
        for key, item in value.pairs:
            field = key if key in self._exact else self._folded.get(fold(key))
            if field is None:
                continue
            new = self._exact[field].store(item, after.get(field), faults, (self.name, path + field))
            if new is None:
                after.pop(field, None)
            else:
                after[field] = new
        return after


class Unmarshaler(GoType):
    """A type with its own UnmarshalJSON: nothing is merged and its error is raised at once."""

    def __init__(self, name: str, convert: Callable[[object], object]) -> None:
        self.name = name
        self._convert = convert

    def store(self, value: object, old: object, faults: Faults, where: tuple[str, str]) -> object:  # noqa: ARG002 - the interface
        """See GoType; raises GoJSONError."""
        return self._convert(value)


def store_fresh(go_type: GoType, value: object) -> object:
    """Store `value` into a new variable; raises GoJSONError with the first type fault."""
    faults = Faults()
    stored = go_type.store(value, None, faults, ("", ""))
    if faults.first is not None:
        raise GoJSONError(faults.first)
    return stored


def decode(raw: bytes, struct: Struct) -> dict[str, object]:
    """Read a request body into `struct` as gin's ShouldBindJSON does.

    Raises EmptyBodyError for an empty body and GoJSONError for what Go refuses.
    """
    stored = store_fresh(struct, parse(raw))
    return stored if isinstance(stored, dict) else {}


def _converted(value: object, faults: Faults, where: tuple[str, str]) -> object:
    """What `any` holds: numbers that float64 cannot hold are faults and leave nothing (Go: convertNumber)."""
    if isinstance(value, OversizedNumber):
        faults.mismatch(value, "float64", where)
        return None
    if isinstance(value, GoObject):
        return GoObject([(key, _converted(item, faults, where)) for key, item in value.pairs])
    if isinstance(value, list):
        return [_converted(item, faults, where) for item in value]
    return value


def _kind(value: object, go_type: str) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, OversizedNumber):
        return f"number {value.literal}"
    if isinstance(value, int | float):
        return f"number {value}" if go_type == "int" else "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def _base64(text: str) -> bytes:
    compact = text.replace("\r", "").replace("\n", "")
    match = _BASE64_TAIL.match(compact)
    good = match.end() if match else 0
    if good != len(compact) or good % 4:
        raise GoJSONError(f"illegal base64 data at input byte {good}")
    try:
        return base64.b64decode(compact, validate=True)
    except ValueError:
        raise GoJSONError(f"illegal base64 data at input byte {max(0, good - 2)}") from None
