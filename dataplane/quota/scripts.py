"""The Lua scripts, which are functions of one library, and how their calls look on the wire.

A server makes the functions of a library once, when it is loaded (``FUNCTION LOAD``, Redis 7.0), and keeps them with
its data; a script that is sent by ``EVAL`` or ``EVALSHA`` is run from its first line in each call.

A call is a RESP array of bulk strings (source: the Redis serialization protocol specification). What is the same in
every call of a script, or in every request of a principal, is packed once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from shared import layout

Argument = str | bytes | int
_FOLDER = Path(__file__).parent
_OF_LAYOUT = ("counters", "leases")
# What several functions share stands before them: Lua knows a local only behind its definition.
_SHARED = ("library", "standing", "fenced", *_OF_LAYOUT, "periods", "window")
_FUNCTIONS = ("acquire", "check", "renew", "settle", "correct", "append", "abandon", "announce", "authfail")
_UNKNOWN = "Function not found"


def bulk(*arguments: Argument) -> bytes:
    """Arguments as RESP bulk strings, one after the other."""
    raws = [argument if type(argument) is bytes else str(argument).encode() for argument in arguments]
    return b"".join([b"$%d\r\n%b\r\n" % (len(raw), raw) for raw in raws])


def command(*arguments: Argument) -> bytes:
    """A whole command."""
    return b"*%d\r\n" % len(arguments) + bulk(*arguments)


class Library:
    """A library of functions; ``text`` is its source, in which each function registers its name with ``SUFFIX``.

    The library and its functions are named by their content: names of functions are a server's, and the data planes of
    two versions may use one server at the same time.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.suffix = f"_{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        self.name = f"gateway{self.suffix}"
        # In one line, so that errors name the lines of the text, and one more.
        self.source = f"#!lua name={self.name}\nlocal SUFFIX = '{self.suffix}' {text}"
        self.load = command("FUNCTION", "LOAD", self.source)

    def is_there(self, error: Exception) -> bool:
        """Whether ``load`` was refused because the server has this library: another worker was quicker."""
        return str(error) == f"Library '{self.name}' already exists"

    def __repr__(self) -> str:
        return f"Library({self.name})"


class Call:
    """One call of a script, packed. ``arguments`` counts its keys and arguments."""

    __slots__ = ("_arguments", "_script", "_tail")

    def __init__(self, script: Script, arguments: int, tail: bytes) -> None:
        self._script = script
        self._arguments = arguments
        self._tail = tail

    @property
    def packed(self) -> bytes:
        """The whole command."""
        return self._script.head(self._arguments) + self._tail

    @property
    def library(self) -> Library:
        """What the server must have loaded."""
        return self._script.library

    def __repr__(self) -> str:
        return f"Call({self._script.name})"


class Script:
    """A function of a library."""

    def __init__(self, name: str, library: Library) -> None:
        self.name = name
        self.library = library
        # Its name in the server.
        self.function = name + library.suffix
        self._called = bulk("FCALL", self.function)
        self._heads: dict[int, bytes] = {}

    def call(self, keys: Sequence[str], arguments: Sequence[Argument]) -> Call:
        """Packs a call from scratch."""
        return Call(self, len(keys) + len(arguments), bulk(len(keys), *keys, *arguments))

    def head(self, arguments: int) -> bytes:
        """What comes before the number of keys, for a call with so many keys and arguments."""
        head = self._heads.get(arguments)
        if head is None:
            head = self._heads[arguments] = b"*%d\r\n" % (3 + arguments) + self._called
        return head

    def __repr__(self) -> str:
        return f"Script({self.name})"


def is_unknown(error: Exception) -> bool:
    """Whether a server says that it does not know a function that was called; it has executed nothing then."""
    return str(error) == _UNKNOWN


def _read(file: str) -> str:
    raw = layout.included(file) if file in _OF_LAYOUT else (_FOLDER / f"{file}.lua").read_bytes()
    return raw.decode()


LIBRARY = Library("\n".join(map(_read, (*_SHARED, *_FUNCTIONS))))
ALL = tuple(Script(name, LIBRARY) for name in _FUNCTIONS)
ACQUIRE, CHECK, RENEW, SETTLE, CORRECT, APPEND, ABANDON, ANNOUNCE, AUTHFAIL = ALL
