"""The Lua scripts and how their calls look on the wire.

A call is a RESP array of bulk strings (source: the Redis serialization protocol specification). What is the same in
every call of a script, or in every request of a principal, is packed once; ``EVALSHA`` is sent, and ``EVAL`` when the
server has forgotten the script.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from shared import layout

Argument = str | bytes | int
_FOLDER = Path(__file__).parent
_OF_LAYOUT = ("counters", "leases")
_VALUE = r"(?:\d+|'[^',]*')"
_NAMES = r"[A-Z_]+(?:, [A-Z_]+)*"
_CONSTANTS = re.compile(rf"^local (?P<names>{_NAMES}) = (?P<values>{_VALUE}(?:, {_VALUE})*)$", re.MULTILINE)
_FUNCTION = re.compile(r"^local function (?P<name>\w+)\(.*?^end$", re.MULTILINE | re.DOTALL)
_NAME = re.compile(r"\b[A-Z][A-Z_]+\b")


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
    """A script of this folder; several files are one script, those of both planes' layout among them."""

    def __init__(self, *files: str) -> None:
        self.name = files[-1]
        self.source = b"#!lua\n" + lean("\n".join(map(_read, files))).encode()
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


def lean(source: str) -> str:
    """A script with its constants written out and without functions that it does not use.

    A server runs all of a script in each call: it makes every function anew, and every local that one of them uses
    costs time then. So ``local NAME = 1`` at the beginning of a line is gone and its value stands where the name did.
    """
    values: dict[str, str] = {}

    def take(definition: re.Match[str]) -> str:
        values.update(zip(definition["names"].split(", "), definition["values"].split(", "), strict=True))
        return ""

    source = _CONSTANTS.sub(take, source)
    source = _NAME.sub(lambda name: values.get(name[0], name[0]), source)
    # From the last to the first: a function is only used by what stands behind it.
    for function in reversed(list(_FUNCTION.finditer(source))):
        if not re.search(rf"\b{function['name']}\(", source[function.end() :]):
            source = source[: function.start()] + source[function.end() :]
    return source


def _read(file: str) -> str:
    raw = layout.included(file) if file in _OF_LAYOUT else (_FOLDER / f"{file}.lua").read_bytes()
    return raw.decode()


ACQUIRE = Script("standing", "counters", "leases", "periods", "window", "acquire")
CHECK = Script("standing", "check")
RENEW = Script("renew")
SETTLE = Script("fenced", "counters", "leases", "window", "settle")
CORRECT = Script("fenced", "counters", "leases", "correct")
APPEND = Script("append")
ABANDON = Script("fenced", "counters", "leases", "window", "abandon")
ANNOUNCE = Script("leases", "announce")
AUTHFAIL = Script("authfail")
ALL = (ACQUIRE, CHECK, RENEW, SETTLE, CORRECT, APPEND, ABANDON, ANNOUNCE, AUTHFAIL)
