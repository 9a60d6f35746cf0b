"""Mutations of bytes: for what no tree can hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random

from tests.fuzz import vocabulary

_TOKENS = (
    b"{", b"}", b"[", b"]", b":", b",", b'"', b"\\", b"\\u", b"\\ud800", b"null", b"true", b"\x00", b"\x0b", b"\x0c",
    b"\xa0", b"\xc2\xa0", b"\xe2\x80\xa8", b"\xef\xbb\xbf", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b" ", b"\t", b"\r\n",
    b"//", b"/*", b"#", b"NaN", b"\x1a", b"\x1f\x8b", b"{}", b"[]", b'{"model":"secret"}',
)  # fmt: skip
_SPACES = (b" ", b"\t", b"\n", b"\r", b"\r\n", b"    ", b"\x0b", b"\x0c", b"\xc2\xa0", b"\xe2\x80\x83", b"\xef\xbb\xbf")


def _flip(raw: bytes, random: Random) -> bytes:
    position = random.randrange(len(raw))
    return raw[:position] + bytes([raw[position] ^ 1 << random.randrange(8)]) + raw[position + 1 :]


def _insert(raw: bytes, random: Random) -> bytes:
    position = random.randrange(len(raw) + 1)
    return raw[:position] + random.choice(_TOKENS) + raw[position:]


def _replace(raw: bytes, random: Random) -> bytes:
    position = random.randrange(len(raw))
    return raw[:position] + bytes([random.randrange(256)]) + raw[position + 1 :]


def _delete(raw: bytes, random: Random) -> bytes:
    start = random.randrange(len(raw))
    return raw[:start] + raw[start + random.choice((1, 1, 2, 5, 20)) :]


def _truncate(raw: bytes, random: Random) -> bytes:
    return raw[: random.randrange(len(raw))]


def _repeat(raw: bytes, random: Random) -> bytes:
    start = random.randrange(len(raw))
    end = start + random.choice((1, 2, 8, 40))
    return raw[:end] + raw[start:end] * random.choice((1, 1, 2, 50)) + raw[end:]


def _space(raw: bytes, random: Random) -> bytes:
    positions = [random.randrange(len(raw)) for _ in range(20)]
    position = next((position for position in positions if raw[position] in b"{}[]:,"), 0)
    return raw[:position] + random.choice(_SPACES) * random.choice((1, 1, 3, 500)) + raw[position:]


def _surround(raw: bytes, random: Random) -> bytes:
    around = random.choice((*_SPACES, b"{}", b'{"model":"secret"}', b"\x00", b"]", b"}", b"garbage", b"1"))
    return around + raw if random.random() < 0.5 else raw + around


def _encode(raw: bytes, random: Random) -> bytes:
    return raw.decode("utf-8", "replace").encode(
        random.choice(("utf-16", "utf-16-le", "utf-32", "utf-7", "utf-8-sig", "latin-1")), "replace"
    )


def _respell(raw: bytes, random: Random) -> bytes:
    """A character of a string as an escape, or the other way round."""
    for _ in range(20):
        position = random.randrange(len(raw))
        if raw[position : position + 1].isalpha() and raw.count(b'"', 0, position) % 2:
            return raw[:position] + b"\\u%04x" % raw[position] + raw[position + 1 :]
    return raw


def _canary(raw: bytes, random: Random) -> bytes:
    position = random.randrange(len(raw) + 1)
    return raw[:position] + json.dumps(vocabulary.CANARY).encode() + raw[position:]


_MUTATIONS: tuple[Callable[[bytes, Random], bytes], ...] = (
    _flip, _insert, _replace, _delete, _truncate, _repeat, _space, _space, _surround, _encode, _respell, _respell,
    _canary,
)  # fmt: skip


def mutated(raw: bytes, random: Random) -> bytes:
    """The body with one mutation."""
    return random.choice(_MUTATIONS)(raw, random) if raw else random.choice(_TOKENS)
