"""The Lua scripts and how their calls look on the wire.

A call is a RESP array of bulk strings (source: the Redis serialization protocol specification). What is the same in
every call of a script, or in every request of a principal, is packed once; ``EVALSHA`` is sent, and ``EVAL`` when the
server has forgotten the script.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

Argument = str | bytes | int
_FOLDER = Path(__file__).parent


def bulk(*arguments: Argument) -> bytes:
    """Arguments as RESP bulk strings, one after the other."""
    raws = [argument if type(argument) is bytes else str(argument).encode() for argument in arguments]
    return b"".join([b"$%d\r\n%b\r\n" % (len(raw), raw) for raw in raws])


def command(*arguments: Argument) -> bytes:
    """A whole command."""
    return b"*%d\r\n" % len(arguments) + bulk(*arguments)


class Call:
    """One call of a script, packed. ``arguments`` counts its keys and arguments."""

    __slots__ = ("_arguments", "_script", "_tail")

    def __init__(self, script: Script, arguments: int, tail: bytes) -> None:
        self._script = script
        self._arguments = arguments
        self._tail = tail

    @property
    def by_digest(self) -> bytes:
        """The call for a server that knows the script."""
        return self._script.head_by_digest(self._arguments) + self._tail

    @property
    def by_source(self) -> bytes:
        """The call for any server; it knows the script afterwards."""
        return self._script.head_by_source(self._arguments) + self._tail

    def __repr__(self) -> str:
        return f"Call({self._script.name})"


class Script:
    """A script of this folder; several files are one script, the first of them with the ``#!lua`` line."""

    def __init__(self, *files: str) -> None:
        self.name = files[-1]
        self.source = b"\n".join((_FOLDER / f"{file}.lua").read_bytes() for file in files)
        digest = hashlib.sha1(self.source, usedforsecurity=False).hexdigest()
        self._by_digest = bulk("EVALSHA", digest)
        self._by_source = bulk("EVAL", self.source)
        self._heads: dict[int, bytes] = {}

    def call(self, keys: Sequence[str], arguments: Sequence[Argument]) -> Call:
        """Packs a call from scratch."""
        return Call(self, len(keys) + len(arguments), bulk(len(keys), *keys, *arguments))

    def head_by_digest(self, arguments: int) -> bytes:
        """What comes before the number of keys, for a call with so many keys and arguments."""
        head = self._heads.get(arguments)
        if head is None:
            head = self._heads[arguments] = b"*%d\r\n" % (3 + arguments) + self._by_digest
        return head

    def head_by_source(self, arguments: int) -> bytes:
        """The same with the script's source."""
        return b"*%d\r\n" % (3 + arguments) + self._by_source

    def __repr__(self) -> str:
        return f"Script({self.name})"


ACQUIRE = Script("standing", "periods", "window", "acquire")
CHECK = Script("standing", "check")
RENEW = Script("renew")
SETTLE = Script("fenced", "periods", "window", "settle")
CORRECT = Script("fenced", "periods", "correct")
APPEND = Script("append")
ABANDON = Script("fenced", "periods", "window", "abandon")
ANNOUNCE = Script("announce")
AUTHFAIL = Script("authfail")
ALL = (ACQUIRE, CHECK, RENEW, SETTLE, CORRECT, APPEND, ABANDON, ANNOUNCE, AUTHFAIL)
