"""JSON read the way Go's encoding/json reads it into a struct, which is what Ollama sees of a request.

Rules followed (Go source: encoding/json decode.go, fold.go; gin binding/json.go):

* the first value of the body is read, what follows it is ignored; an empty body is `EmptyBodyError`;
* a key matches a struct field exactly or else case-insensitively with simple Unicode folding (the long s, U+017F, is s;
  the Kelvin sign, U+212A, is k); of several matching keys the last one wins, unknown keys are skipped;
* a repeated object merges into the struct or map read before; a repeated array reuses the elements read before, also
  those that a shorter array in between has hidden;
* in maps (`options`) keys are exact; null leaves a plain field as it was and empties pointers, arrays and maps;
* a wrong type is remembered, reading goes on, and the first such fault is raised at the end;
* an integer is a literal without fraction and exponent within the bounds of its type, anything else is a wrong type; a
  number that float64 cannot hold is one too, but only where it is stored: below an unknown key nobody converts it;
* bytes that are not UTF-8 and lone surrogates become U+FFFD, each byte one; NaN and Infinity are no JSON.

Not followed: the nesting limit is CPython's, and the wording of syntax errors is close to Go's, not the same.
"""

import codecs
import json
import math
import re
from typing import Final, NoReturn, Self

_WHITESPACE: Final = " \t\r\n"
_EXACT_INTEGER: Final = 2**53
# Longer than any integer that float64 holds.
_MAX_INTEGER_CHARACTERS: Final = 320
_ESCAPE: Final = re.compile(
    r"\\(?:u([dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|(u[dD][89a-fA-F][0-9a-fA-F]{2})|(?s:.))"
)
_SYNTAX: Final = {
    "Expecting value": "looking for beginning of value",
    "Expecting property name enclosed in double quotes": "looking for beginning of object key string",
    "Expecting ':' delimiter": "after object key",
    "Expecting ',' delimiter": "after object key:value pair",
    "Invalid control character at": "in string literal",
    "Invalid \\escape": "in string escape code",
    "Invalid \\uXXXX escape": "in \\u hexadecimal character escape",
    "Illegal trailing comma before end of object": "looking for beginning of object key string",
    "Illegal trailing comma before end of array": "looking for beginning of value",
}


class GoJSONError(ValueError):
    """A body that Go would refuse; the text is what Ollama answers with."""


class EmptyBodyError(GoJSONError):
    """Nothing but white space (Go: io.EOF)."""


class GoObject(dict[str, object]):
    """One JSON object: as a dict the last of equal keys wins; `pairs` keeps all of them in order."""

    __slots__ = ("pairs",)

    def __init__(self, pairs: list[tuple[str, object]]) -> None:
        super().__init__(pairs)
        self.pairs = tuple(pairs)


class WideInteger(float):
    """An integer beyond 2**53: a float64 where Go reads `any`, exact where it reads an int."""

    __slots__ = ("exact",)

    def __new__(cls, exact: int) -> Self:
        """Keep `exact`, which float64 can hold, beside the float64."""
        number = super().__new__(cls, exact)
        number.exact = exact
        return number

    exact: int


class OversizedNumber(float):
    """A number that float64 cannot hold: a fault of type wherever it is stored."""

    __slots__ = ("literal",)

    def __new__(cls, literal: str) -> Self:
        """Keep the beginning of the literal, for the fault's text."""
        number = super().__new__(cls, math.inf)
        number.literal = literal[:40]
        return number

    literal: str


def parse(raw: bytes) -> object:
    """Return the first JSON value of `raw`; objects are `GoObject`.

    Raises EmptyBodyError or GoJSONError.
    """
    text = raw.decode("utf-8", "go-replace")
    start = len(text) - len(text.lstrip(_WHITESPACE))
    if start == len(text):
        raise EmptyBodyError("EOF")
    if "\\u" in text:
        text = _ESCAPE.sub(_replace_lone_surrogate, text)
    try:
        value, _ = _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise GoJSONError(_syntax_message(error)) from None
    except RecursionError:
        raise GoJSONError("json: exceeded max depth") from None
    return value


def fold(key: str) -> str:
    """The key with Go's simple folding, as far as it can reach an ASCII field name (Go: encoding/json fold.go)."""
    return key.replace("\u017f", "s").replace("\u212a", "k").translate(_ASCII_LOWER)


_ASCII_LOWER: Final = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}


def _replace_lone_surrogate(match: re.Match[str]) -> str:
    return "\\ufffd" if match.group(2) else match.group(0)


def _syntax_message(error: json.JSONDecodeError) -> str:
    where = _SYNTAX.get(error.msg)
    if where is None or error.pos >= len(error.doc.rstrip(_WHITESPACE)):
        return "unexpected EOF"
    return f"invalid character {error.doc[error.pos]!r} {where}"


def _integer(literal: str) -> int | float:
    if len(literal) < 16:
        return int(literal)
    if len(literal) > _MAX_INTEGER_CHARACTERS or math.isinf(float(literal)):
        return OversizedNumber(literal)
    exact = int(literal)
    return exact if abs(exact) <= _EXACT_INTEGER else WideInteger(exact)


def _float(literal: str) -> float:
    number = float(literal)
    return OversizedNumber(literal) if math.isinf(number) else number


def _constant(name: str) -> NoReturn:
    raise GoJSONError(f"invalid character {name[0]!r} looking for beginning of value")


def _replace_each_byte(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\ufffd" * (error.end - error.start), error.end


codecs.register_error("go-replace", _replace_each_byte)

_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=GoObject, parse_int=_integer, parse_float=_float, parse_constant=_constant
)
