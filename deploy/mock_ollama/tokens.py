"""Deterministic words: everything that the mock says is drawn from a hash of the request."""

import hashlib
import re
from typing import Final

_PIECE: Final = re.compile(r"\s*\S{1,6}|\s+")
_WORDS: Final = (
    "the", "a", "model", "answers", "with", "plain", "words", "that", "mean", "little", "and", "always", "come",
    "in", "same", "order", "because", "seed", "prompt", "decide", "which", "one", "is", "next", "river", "stone",
    "light", "quiet", "garden", "morning", "seven", "copper", "paper", "window", "north", "letter", "simple",
    "number", "between", "under", "against", "naïve", "café", "über", "日本", "🙂", "<b>", "R&D", '"so"', "a\\b",
    "first", "last", "open", "close", "green", "blue", "slow", "fast", "count", "token", "frame", "line", "end", "of",
)  # fmt: skip


class Draw:
    """A stream of choices that depends on its key only."""

    def __init__(self, key: str) -> None:
        self._key = key.encode("utf-8", "replace")
        self._turn = 0

    def __repr__(self) -> str:
        return f"Draw(turn={self._turn})"

    def take(self, count: int) -> bytes:
        """The next `count` bytes of the stream."""
        self._turn += 1
        return hashlib.shake_256(self._turn.to_bytes(4) + self._key).digest(count)

    def integer(self, low: int, high: int) -> int:
        """An integer from `low` to `high`, both included."""
        return low + int.from_bytes(self.take(8)) % (high - low + 1)

    def words(self, count: int) -> list[str]:
        """`count` tokens of text; every one but the first begins with a space."""
        chosen = [_WORDS[byte % len(_WORDS)] for byte in self.take(count)]
        return [word if index == 0 else f" {word}" for index, word in enumerate(chosen)]


def split_text(text: str) -> list[str]:
    """Cut any text into tokens of at most six characters and the white space before them."""
    return _PIECE.findall(text)


def count_tokens(text: str) -> int:
    """How many tokens the mock counts for prompt text: a quarter of its bytes, at least one."""
    return max(1, len(text.encode("utf-8", "replace")) // 4)
