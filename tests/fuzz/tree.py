"""JSON that no dict can hold: repeated keys, and literals in any spelling.

A node is an ``Object``, an ``Array`` or the bytes of a literal; keys are bytes too, quotes included. ``planted`` makes
nodes of a valid body, ``written`` makes bytes of nodes again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

# Each is at least a byte: as many as the longest body has.
MAX_PARTS = 262_144

type Node = Object | Array | bytes


class Object:
    """The pairs of an object, in order; a key may come twice."""

    __slots__ = ("pairs",)

    def __init__(self, pairs: list[tuple[bytes, Node]]) -> None:
        self.pairs = pairs

    def __repr__(self) -> str:
        return f"Object({self.pairs!r})"


class Array:
    """The elements of an array."""

    __slots__ = ("items",)

    def __init__(self, items: list[Node]) -> None:
        self.items = items

    def __repr__(self) -> str:
        return f"Array({self.items!r})"


def planted(raw: bytes) -> Node | None:
    """The nodes of a body; None when it is no JSON that the standard library reads."""
    try:
        return node(_DECODER.decode(raw.decode()))
    except (ValueError, RecursionError):
        return None


def node(value: Any) -> Node:
    """A node of parsed JSON."""
    if isinstance(value, Object | Array | bytes):
        return value
    if isinstance(value, dict):
        return Object([(text(key), node(item)) for key, item in value.items()])
    if isinstance(value, list):
        return Array([node(item) for item in value])
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def text(value: str) -> bytes:
    """A string literal."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def written(root: Node) -> bytes:
    """The bytes of a node, without white space; of what has more than ``MAX_PARTS`` parts, the beginning."""
    parts: list[bytes] = []
    # Not recursive: some trees are deeper than the interpreter's stack.
    waiting: list[Node | tuple[bytes]] = [root]
    while waiting and len(parts) < MAX_PARTS:
        part = waiting.pop()
        if isinstance(part, bytes):
            parts.append(part)
        elif isinstance(part, tuple):
            parts.append(part[0])
        elif isinstance(part, Object):
            waiting.append((b"}",))
            for index in range(len(part.pairs) - 1, -1, -1):
                key, value = part.pairs[index]
                waiting += (value, ((b"," if index else b"") + key + b":",))
            waiting.append((b"{",))
        else:
            waiting.append((b"]",))
            for index in range(len(part.items) - 1, -1, -1):
                waiting += (part.items[index], (b"," if index else b"",))
            waiting.append((b"[",))
    return b"".join(parts)


def containers(root: Node) -> Iterator[Object | Array]:
    """Every object and array, from the outside in."""
    waiting = [root]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Object):
            yield part
            waiting.extend(value for _, value in part.pairs)
        elif isinstance(part, Array):
            yield part
            waiting.extend(part.items)


def _pairs(pairs: list[tuple[str, Any]]) -> Object:
    return Object([(text(key), node(value)) for key, value in pairs])


_DECODER = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_int=str.encode, parse_float=str.encode, parse_constant=str.encode
)
