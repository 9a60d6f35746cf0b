"""How calls of the functions in Redis (``shared.quota``) look on the wire.

A call is a RESP array of bulk strings (source: the Redis serialization protocol specification). What is the same in
every call of a script, or in every request of a principal, is packed once.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from shared.quota.library import LIBRARY, NAMES, PROBE, Library

Argument = str | bytes | int


def bulk(*arguments: Argument) -> bytes:
    """Arguments as RESP bulk strings, one after the other."""
    raws = [argument if type(argument) is bytes else str(argument).encode() for argument in arguments]
    return b"".join([b"$%d\r\n%b\r\n" % (len(raw), raw) for raw in raws])


def command(*arguments: Argument) -> bytes:
    """A whole command."""
    return b"*%d\r\n" % len(arguments) + bulk(*arguments)


class Call(msgspec.Struct, frozen=True, eq=False):
    """One call of a script, packed. ``arguments`` counts its keys and arguments; ``tail`` begins with how many keys."""

    script: Script
    arguments: int
    tail: bytes

    @property
    def packed(self) -> bytes:
        """The whole command."""
        return self.script.head(self.arguments) + self.tail

    def __repr__(self) -> str:
        return f"Call({self.script.name})"


class Script:
    """A function of a library."""

    def __init__(self, name: str, library: Library) -> None:
        self.name = name
        self.library = library
        # Its name in the server.
        self.function = library.function(name)
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


ALL = tuple(Script(name, LIBRARY) for name in NAMES)
ACQUIRE, CHECK, RENEW, SETTLE, CORRECT, APPEND, ABANDON, ANNOUNCE, AUTHFAIL = ALL
KNOWN = Script(PROBE, LIBRARY)
