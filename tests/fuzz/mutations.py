"""Mutations of trees, and which kind a body gets.

About a third only changes what may be changed, so that many bodies are accepted and what is built of them is judged;
the others repeat, respell, plant and nest. ``mutated`` is a pure function of its arguments and the state of ``random``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from tests.fuzz import bytewise, vocabulary
from tests.fuzz.tree import Array, Node, Object, containers, node, planted, text, written

MAX_BYTES = 262_144
# What is longer has grown already.
_MAX_GROWING_BYTES = 4096

_FOLDS = {"s": "\u017f", "k": "\u212a", "i": "\u0131", "K": "\u212a", "S": "\u017f"}
_CHARACTERS = (
    b"=",
    b"==",
    b"A",
    b"/",
    b"-",
    b":",
    b" ",
    b"\\n",
    b"\\u0000",
    b".",
    b"@",
    b",",
    b";",
    b'\\"',
    b"\xc3\xa9",
)
# Values that are in order somewhere under the name.
_PLAUSIBLE: dict[str, tuple[object, ...]] = {
    "stream": (True, False, None),
    "num_predict": (1, 10, 4096, 4097, 10**6, -1, -2, None),
    "max_tokens": (1, 10, 4096, 4097, -1, None),
    "max_completion_tokens": (1, 9, 4096, 2**63, -2, None),
    "seed": (0, 1, -1, 2**63 - 1, -(2**63)),
    "temperature": (0, 1, 0.7, 1e-6, 2, 1000.0),
    "top_p": (0, 0.5, 1, 1e-7),
    "min_p": (0.05, 1e-20),
    "top_k": (-1, 0, 40, 1_000_000),
    "num_keep": (-1, 4),
    "repeat_last_n": (-1, 64, 65_536),
    "stop": ("x", ["x", "\u2028"], [], None, ["<"] * 16),
    "think": (True, False, None, "low", "max"),
    "format": ("json", "", None, {}, {"type": "object"}, {"Type": "a", "type": "b"}),
    "response_format": ({"type": "json_object"}, {"type": "json_schema", "json_schema": {"schema": {"a": 1e20}}}),
    "logprobs": (True, False, None, 5),
    "top_logprobs": (0, 20, None),
    "truncate": (True, False, None),
    "dimensions": (1, 65_536, None),
    "role": ("user", "USER", "tool", "assistant", "system", "developer", "document 1", "contro\u0131"),
    "content": ("", None, "hi", "<&>\u2028", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]),
    "thinking": ("hm", "", None),
    "tool_choice": ("none", "auto", {"type": "function"}),
    "reasoning_effort": ("none", "minimal", "xhigh", None),
    "stream_options": ({"include_usage": True}, None, {}),
    "arguments": ({}, {"a": 1}, {"model": "x", "MODEL": "y"}, {"a": [1e20, 1.5e-6, 1e300]}, '{"a":[1e20]}', "", None),
    "parameters": ({}, None, {"type": "object", "properties": {"a": {"type": "string"}}}),
    "tools": ([], [{"function": {"name": "f"}}], None),
    "input": ("hi", ["a", "b"], ["é"] * 9),
    "prompt": ("hi", ["hi"], "\u2028<", "x" * 3000),
    "system": ("be brief", "", None),
    "suffix": ("end", "", None),
    "images": ([], None, ["iVBORw0KGgo="]),
}


def mutated(raw: bytes, others: Sequence[bytes], random: Random) -> bytes:
    """The body after one to four mutations, at most ``MAX_BYTES`` long; ``others`` are what may be spliced in."""
    count = random.choice((1, 1, 1, 2, 2, 3, 4))
    kind = random.random()
    root = planted(raw) if kind < 0.82 else None
    if root is not None:
        mutations = _GENTLE if kind < 0.34 else _ROUGH
        for _ in range(count):
            root = random.choice(mutations)(root, others, random)
        raw = written(root)
    if root is None or kind > 0.78:
        for _ in range(count):
            raw = bytewise.mutated(raw, random)
    return raw[:MAX_BYTES]


def _object(root: Node, random: Random) -> Object | None:
    objects = [part for part in containers(root) if isinstance(part, Object)]
    # The outermost is the one that names the model: as likely as all others together.
    return None if not objects else objects[0] if random.random() < 0.5 else random.choice(objects)


def _plausible(root: Node, others: Sequence[bytes], random: Random) -> Node:
    known = [
        (part, index, name)
        for part in containers(root)
        if isinstance(part, Object)
        for index, (key, _) in enumerate(part.pairs)
        if (name := key[1:-1].decode("utf-8", "replace")) in _PLAUSIBLE
    ]
    if known:
        part, index, name = random.choice(known)
        part.pairs[index] = (part.pairs[index][0], node(random.choice(_PLAUSIBLE[name])))
    return root


def _add(root: Node, others: Sequence[bytes], random: Random) -> Node:
    part = _object(root, random)
    if part is not None:
        name = random.choice(list(_PLAUSIBLE))
        key = text(name)
        if all(key != present for present, _ in part.pairs):
            part.pairs.insert(random.randrange(len(part.pairs) + 1), (key, node(random.choice(_PLAUSIBLE[name]))))
    return root


def _add_unknown(root: Node, others: Sequence[bytes], random: Random) -> Node:
    part = _object(root, random)
    if part is not None:
        name = random.choice((*vocabulary.DANGEROUS, vocabulary.CANARY, "x" + str(random.randrange(100))))
        key = text(name)
        if all(key != present for present, _ in part.pairs):
            part.pairs.insert(random.randrange(len(part.pairs) + 1), (key, _value(random)))
    return root


def _shuffle(root: Node, others: Sequence[bytes], random: Random) -> Node:
    part = _object(root, random)
    if part is not None:
        random.shuffle(part.pairs)
    return root


def _respell(root: Node, others: Sequence[bytes], random: Random) -> Node:
    """A key or a text with escapes in place of characters: the same to every reader."""
    part = _object(root, random)
    if part is not None and part.pairs:
        index = random.randrange(len(part.pairs))
        key, value = part.pairs[index]
        if random.random() < 0.5 or not isinstance(value, bytes):
            part.pairs[index] = (_escaped(key, random), value)
        elif value[:1] == b'"':
            part.pairs[index] = (key, _escaped(value, random))
    return root


def _repeat(root: Node, others: Sequence[bytes], random: Random) -> Node:
    part = _object(root, random)
    if part is not None and part.pairs:
        key, value = random.choice(part.pairs)
        if random.random() < 0.3:
            key = _escaped(key, random)
        twin = value if random.random() < 0.3 else _value(random)
        part.pairs.insert(random.randrange(len(part.pairs) + 1), (key, twin))
    return root


def _recase(root: Node, others: Sequence[bytes], random: Random) -> Node:
    part = _object(root, random)
    if part is not None and part.pairs:
        index = random.randrange(len(part.pairs))
        key, value = part.pairs[index]
        name = _cased(key[1:-1].decode("utf-8", "replace"), random)
        if random.random() < 0.5:
            part.pairs[index] = (text(name), value)
        else:
            part.pairs.insert(random.randrange(len(part.pairs) + 1), (text(name), _value(random)))
    return root


def _plant(root: Node, others: Sequence[bytes], random: Random) -> Node:
    part = _object(root, random)
    if part is not None:
        name = random.choice(vocabulary.READ if random.random() < 0.5 else vocabulary.DANGEROUS)
        if random.random() < 0.3:
            name = _cased(name, random)
        part.pairs.insert(random.randrange(len(part.pairs) + 1), (text(name), _value(random)))
    return root


def _exchange(root: Node, others: Sequence[bytes], random: Random) -> Node:
    """Another value somewhere; the model's name more often than others."""
    if isinstance(root, Object) and root.pairs and random.random() < 0.2:
        for index, (key, _) in enumerate(root.pairs):
            if key == b'"model"':
                root.pairs[index] = (key, random.choice(vocabulary.MODELS))
                return root
    return _at_random(root, random, lambda value: _value(random))


def _nest(root: Node, others: Sequence[bytes], random: Random) -> Node:
    def nested(value: Node) -> Node:
        wrap = random.random() < 0.5
        for _ in range(random.choice((1, 1, 2, 2, 30, 59, 60, 61, 62, 63, 64, 65, 200, 3000))):
            value = Array([value]) if wrap else Object([(b'"a"', value)])
        return value

    return _at_random(root, random, nested)


def _grow(root: Node, others: Sequence[bytes], random: Random) -> Node:
    times = random.choice((2, 2, 2, 3, 3, 3, 17, 17, 33, 130, 130, 2100))
    part = random.choice(list(containers(root)) or [Array([])])
    size = len(written(root))
    if size > _MAX_GROWING_BYTES:
        return root
    # What is cut off at the cap is no JSON any more.
    times = min(times, MAX_BYTES // size)
    if isinstance(part, Array):
        part.items *= times
    elif part.pairs:
        _, value = random.choice(part.pairs)
        part.pairs += [(b'"%s%d"' % (b"x", index), value) for index in range(times)]
    return root


def _edit(root: Node, others: Sequence[bytes], random: Random) -> Node:
    """A character more, less or other in a text: names, base64, JSON within JSON."""

    def edited(value: Node) -> Node:
        if not isinstance(value, bytes) or value[:1] != b'"' or len(value) < 3:
            return value
        position = random.randrange(1, len(value) - 1)
        piece = random.choice((b"", b"", value[position : position + 1] * 2, random.choice(_CHARACTERS)))
        end = min(position + random.choice((0, 1, 1, 4)), len(value) - 1)
        return value[:position] + piece + value[end:]

    texts = [
        (part, index)
        for part in containers(root)
        for index, value in enumerate(_values(part))
        if isinstance(value, bytes) and value[:1] == b'"'
    ]
    if texts:
        part, index = random.choice(texts)
        if isinstance(part, Object):
            part.pairs[index] = (part.pairs[index][0], edited(part.pairs[index][1]))
        else:
            part.items[index] = edited(part.items[index])
    return root


def _values(part: Object | Array) -> list[Node]:
    return part.items if isinstance(part, Array) else [value for _, value in part.pairs]


def _delete(root: Node, others: Sequence[bytes], random: Random) -> Node:
    part = random.choice(list(containers(root)) or [Array([])])
    held = part.pairs if isinstance(part, Object) else part.items
    if held:
        del held[random.randrange(len(held))]
    return root


def _splice(root: Node, others: Sequence[bytes], random: Random) -> Node:
    other = planted(random.choice(others))
    donors = (
        [part for part in containers(other) if isinstance(part, Object) and part.pairs] if other is not None else []
    )
    part = _object(root, random)
    if part is not None and donors:
        part.pairs.insert(random.randrange(len(part.pairs) + 1), random.choice(random.choice(donors).pairs))
    return root


def _at_random(root: Node, random: Random, change: Callable[[Node], Node]) -> Node:
    part = random.choice(list(containers(root)) or [Array([])])
    if isinstance(part, Object) and part.pairs:
        index = random.randrange(len(part.pairs))
        part.pairs[index] = (part.pairs[index][0], change(part.pairs[index][1]))
    elif isinstance(part, Array) and part.items:
        index = random.randrange(len(part.items))
        part.items[index] = change(part.items[index])
    return root


def _value(random: Random) -> Node:
    kind = random.randrange(8)
    match kind:
        case 0 | 1:
            return random.choice(vocabulary.NUMBERS)
        case 2:
            return random.choice(vocabulary.TEXTS)
        case 3:
            return random.choice(vocabulary.MODELS)
        case 4:
            return random.choice(vocabulary.IMAGES)
        case 5:
            return planted(written(random.choice(vocabulary.SCHEMAS))) or b"null"
        case 6:
            return node(random.choice(_PLAUSIBLE[random.choice(list(_PLAUSIBLE))]))
        case _:
            return random.choice(vocabulary.OTHERS)


def _cased(name: str, random: Random) -> str:
    match random.randrange(6):
        case 0:
            return name.upper()
        case 1:
            return name.title()
        case 2:
            return name.swapcase()
        case 3:
            return "".join(character.upper() if random.random() < 0.3 else character for character in name)
        case _:
            return "".join(
                _FOLDS[character] if character in _FOLDS and random.random() < 0.5 else character for character in name
            )


def _escaped(literal: bytes, random: Random) -> bytes:
    try:
        name = literal[1:-1].decode()
    except UnicodeDecodeError:
        return literal
    if "\\" in name:
        return literal
    spelled = "".join(
        f"\\u{ord(character):04x}" if ord(character) < 0x10000 and random.random() < 0.4 else character
        for character in name
    )
    return b'"' + spelled.encode("utf-8", "surrogatepass") + b'"'


type _Mutation = Callable[[Node, Sequence[bytes], Random], Node]
_GENTLE: tuple[_Mutation, ...] = (_plausible, _plausible, _add, _add, _add_unknown, _shuffle, _respell, _delete)
_ROUGH: tuple[_Mutation, ...] = (
    _repeat, _recase, _recase, _plant, _plant, _exchange, _exchange, _nest, _grow, _delete, _splice, _splice,
    _plausible, _edit, _edit, _edit,
)  # fmt: skip
