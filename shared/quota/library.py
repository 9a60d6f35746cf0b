"""One library of all functions, as control planes load it and data planes call it.

A server makes the functions of a library once, when it is loaded (``FUNCTION LOAD``, Redis 7.0), and keeps them with
its data; a script that is sent by ``EVAL`` or ``EVALSHA`` is run from its first line in each call.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from shared import layout

# Called by data planes. Each is a file of its name, which says in its head what it takes and what it replies.
NAMES = ("acquire", "check", "renew", "settle", "correct", "append", "abandon", "announce", "authfail")
# Does nothing and is called without a key, by whoever wants to know whether the library is there.
PROBE = "known"

_FOLDER = Path(__file__).parent
_OF_LAYOUT = ("counters", "leases")
# What several functions share stands before them: Lua knows a local only behind its definition.
_SHARED = ("library", "standing", "fenced", *_OF_LAYOUT, "periods", "window")
_UNKNOWN = "Function not found"


class Library:
    """A library of functions; ``text`` is its source, in which each function registers its name with ``SUFFIX``.

    The library and its functions are named by their content: names of functions are a server's, and the planes of two
    versions may use one server at the same time.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._suffix = f"_{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        self.name = f"gateway{self._suffix}"
        # In one line, so that errors name the lines of the text, and one more.
        self.source = f"#!lua name={self.name}\nlocal SUFFIX = '{self._suffix}' {text}"

    def function(self, name: str) -> str:
        """What the server calls a function of this library."""
        return name + self._suffix

    def is_there(self, error: Exception) -> bool:
        """Whether loading was refused because the server has this library: somebody else was quicker."""
        return str(error) == f"Library '{self.name}' already exists"

    def __repr__(self) -> str:
        return f"Library({self.name})"


def is_unknown(error: Exception) -> bool:
    """Whether a server says that it does not know a function that was called; it has executed nothing then."""
    return str(error) == _UNKNOWN


def _read(file: str) -> str:
    raw = layout.included(file) if file in _OF_LAYOUT else (_FOLDER / f"{file}.lua").read_bytes()
    return raw.decode()


LIBRARY = Library("\n".join(map(_read, (*_SHARED, PROBE, *NAMES))))
