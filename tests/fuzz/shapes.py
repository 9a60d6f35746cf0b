"""Which keys may stand where: in what is sent, and in what a client may write exactly.

Not taken from the gateway's structs: these lists are what they are held against.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from deploy.mock_ollama.go_json import GoObject, fold


class Shape:
    """The keys of an object and what is below them; None is a plain value or a list of plain values."""

    def __init__(self, **fields: Shape | Free | None) -> None:
        self.fields: Mapping[str, Shape | Free | None] = fields
        self.folded = {fold(name): name for name in fields}

    def with_plain(self, *names: str) -> Shape:
        """The shape with more plain fields."""
        return Shape(**{**self.fields, **dict.fromkeys(names)})

    def __repr__(self) -> str:
        return f"Shape({', '.join(self.fields)})"


class Free:
    """A map with keys of the client's own."""


FREE = Free()
SAMPLING = (
    "num_keep", "seed", "top_k", "top_p", "min_p", "typical_p", "repeat_last_n", "temperature", "repeat_penalty",
    "presence_penalty", "frequency_penalty",
)  # fmt: skip
_OPTIONS = Shape(**dict.fromkeys(("num_predict", "stop", *SAMPLING)))
_FUNCTION = Shape(name=None, description=None, parameters=FREE)
_TOOL = Shape(type=None, function=_FUNCTION)
_CALL = Shape(id=None, function=Shape(name=None, arguments=FREE, index=None))
_MESSAGE = Shape(
    role=None, content=None, thinking=None, images=None, tool_calls=_CALL, tool_name=None, tool_call_id=None
)
_CHAT = Shape(
    model=None, stream=None, messages=_MESSAGE, options=_OPTIONS, format=FREE, tools=_TOOL, think=None, logprobs=None,
    top_logprobs=None,
)  # fmt: skip
_GENERATE = Shape(
    model=None, stream=None, prompt=None, options=_OPTIONS, suffix=None, system=None, images=None, format=FREE,
    think=None, logprobs=None, top_logprobs=None,
)  # fmt: skip
_EMBED = Shape(model=None, input=None, truncate=None, dimensions=None)

SENT: dict[str, Shape] = {"/api/chat": _CHAT, "/api/generate": _GENERATE, "/api/embed": _EMBED}

# What is left where a model's policy allows these and decides num_ctx and keep_alive.
ALLOWED_BY_POLICY = ("temperature", "stop", "dimensions")
_LEFT_OPTIONS = Shape(num_predict=None, num_ctx=None, temperature=None, stop=None)
_LEFT = Shape(model=None, stream=None, keep_alive=None, options=_LEFT_OPTIONS)
SENT_BY_POLICY: dict[str, Shape] = {
    "/api/chat": Shape(
        **_LEFT.fields,
        messages=Shape(role=None, content=None, thinking=None, tool_calls=_CALL, tool_name=None, tool_call_id=None),
    ),
    "/api/generate": _LEFT.with_plain("prompt", "system"),
    "/api/embed": Shape(model=None, input=None, dimensions=None, keep_alive=None, options=Shape(num_ctx=None)),
}

_OPENAI_CALL = Shape(id=None, type=None, index=None, function=Shape(name=None, arguments=None))
_PART = Shape(type=None, text=None, refusal=None, image_url=Shape(url=None, detail=None))
_SAMPLED = (
    "model", "stream", "max_tokens", "max_completion_tokens", "temperature", "top_p", "frequency_penalty",
    "presence_penalty", "seed", "stop",
)  # fmt: skip
_STREAM_OPTIONS = Shape(include_usage=None)
# What is not sent but has a meaning to Ollama: a key that only folding makes equal to it is refused as well.
_POLICY = ("keep_alive", "shift", "truncate", "_debug_render_only")
WRITTEN: dict[str, Shape] = {
    "/api/chat": _CHAT.with_plain(*_POLICY),
    "/api/generate": _GENERATE.with_plain(*_POLICY, "raw", "template", "context"),
    "/api/embed": _EMBED.with_plain("keep_alive"),
    "/api/embeddings": Shape(model=None, prompt=None, keep_alive=None, options=FREE),
    "/v1/chat/completions": Shape(
        **dict.fromkeys((*_SAMPLED, "reasoning_effort", "logprobs", "top_logprobs", "_debug_render_only")),
        messages=Shape(
            role=None, content=_PART, name=None, reasoning=None, reasoning_content=None, tool_calls=_OPENAI_CALL,
            tool_call_id=None,
        ),
        stream_options=_STREAM_OPTIONS,
        response_format=Shape(type=None, json_schema=Shape(schema=FREE)),
        tools=_TOOL,
        tool_choice=FREE,
        reasoning=Shape(effort=None),
    ),
    "/v1/completions": Shape(
        **dict.fromkeys((*_SAMPLED, "prompt", "suffix", "logprobs", "_debug_render_only")),
        stream_options=_STREAM_OPTIONS,
    ),
    "/v1/embeddings": Shape(model=None, input=None, dimensions=None, encoding_format=None),
}  # fmt: skip


def repeated(value: Any) -> bool:
    """Whether an object at any depth has a key twice."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, GoObject):
            if len(part) != len(part.pairs):
                return True
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
    return False


def depth(value: Any) -> int:
    """How deep the objects and arrays are nested."""
    level, levels = [value], 0
    while level := [part for part in level if isinstance(part, dict | list)]:
        levels += 1
        level = [child for part in level for child in (part.values() if isinstance(part, dict) else part)]
    return levels


def foreign(value: Any, shape: Shape, path: str = "") -> Iterator[str]:
    """Where a key stands that the shape does not have."""
    for child, below, where in _children(value, shape, path):
        if below is None:
            yield where
        elif isinstance(below, Shape):
            yield from foreign(child, below, where)


def folded(value: Any, shape: Shape, path: str = "") -> Iterator[str]:
    """Where a key stands that equals one of the shape only under folding."""
    for child, below, where in _children(value, shape, path):
        if below is None:
            if fold(where.rpartition(".")[2]) in shape.folded:
                yield where
        elif isinstance(below, Shape):
            yield from folded(child, below, where)


def _children(value: Any, shape: Shape, path: str) -> Iterator[tuple[Any, Shape | Free | None, str]]:
    """Each member with its shape, ``FREE`` for what need not be entered and None for a key that is unknown."""
    for part in value if isinstance(value, list) else (value,):
        if isinstance(part, GoObject):
            for key, child in part.items():
                below = (shape.fields[key] or FREE) if key in shape.fields else None
                yield child, below, f"{path}.{key}"
