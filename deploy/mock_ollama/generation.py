"""The mock model: from an Inference to the tokens that it says and the counts that it reports.

Counting follows Ollama's source: llm/llama_server.go boundedNumPredict, server/routes.go ChatHandler (a thinking model
with `format` generates twice and reports the second pass only).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from deploy.mock_ollama.documents import SchemaError, write_document
from deploy.mock_ollama.inference import Inference
from deploy.mock_ollama.settings import Settings
from deploy.mock_ollama.tokens import Draw, count_tokens, split_text

_OPEN_ENDED_CONTEXTS: Final = 10
_TOKENS_PER_IMAGE: Final = 256
_THINKING_TOKENS: Final = {"low": 6, "medium": 12, "high": 24, "max": 36}


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What one record carries: some tokens of thinking or of content, or the tool calls."""

    thinking: str = ""
    content: str = ""
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    tokens: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """All that one request generates."""

    pieces: tuple[Piece, ...]
    done_reason: str
    prompt_eval_count: int
    eval_count: int


def generate(request: Inference, settings: Settings) -> Generation:
    """Answer `request`; the same request and settings always give the same Generation; raises SchemaError."""
    draw = Draw(_key(request))
    num_ctx = request.options.num_ctx if request.options.num_ctx > 0 else settings.default_num_ctx
    budget = request.options.num_predict if request.options.num_predict >= 0 else _OPEN_ENDED_CONTEXTS * num_ctx
    budget = min(budget, _OPEN_ENDED_CONTEXTS * num_ctx)
    prompt_count = min(num_ctx, count_tokens(request.rendered) + _TOKENS_PER_IMAGE * request.image_count)

    thinking = draw.words(_thinking_count(request))
    thought = thinking[:budget]
    pieces = [Piece(thinking="".join(part), tokens=part) for part in _groups(thought, settings.tokens_per_record)]
    if thought and len(thinking) >= budget:
        return Generation(
            pieces=tuple(pieces), done_reason="length", prompt_eval_count=prompt_count, eval_count=len(thought)
        )
    if thought and request.kind == "chat" and request.format is not None:
        prompt_count = min(num_ctx, prompt_count + len(thought))
        thought = []
    said, done_reason, said_count = _answer(request, settings, draw, budget - len(thought))
    return Generation(
        pieces=(*pieces, *said),
        done_reason=done_reason,
        prompt_eval_count=prompt_count,
        eval_count=len(thought) + said_count,
    )


def _key(request: Inference) -> str:
    last = request.messages[-1].content if request.messages else ""
    return f"{request.model.name}\0{request.options.seed}\0{last}"


def _thinking_count(request: Inference) -> int:
    if not request.think or not request.model.can("thinking"):
        return 0
    return _THINKING_TOKENS[request.think if isinstance(request.think, str) else "medium"]


def _answer(request: Inference, settings: Settings, draw: Draw, budget: int) -> tuple[list[Piece], str, int]:
    calls = _tool_calls(request, draw)
    if calls:
        written = tuple(split_text(json.dumps(calls)))
        if len(written) > budget:
            return [], "length", budget
        return [Piece(tool_calls=calls, tokens=written)], "stop", len(written)
    tokens, done_reason, count = _cut(_text_tokens(request, settings, draw), request.options.stop, budget)
    groups = _groups(tokens, settings.tokens_per_record)
    return [Piece(content="".join(part), tokens=part) for part in groups], done_reason, count


def _text_tokens(request: Inference, settings: Settings, draw: Draw) -> list[str]:
    if isinstance(request.format, Mapping):
        return split_text(json.dumps(write_document(request.format, request.format, draw), ensure_ascii=False))
    if request.format not in (None, "json"):  # a tuple, for a list has no hash
        raise SchemaError(f"{request.format!r} is neither")
    if request.format is not None:
        return split_text(json.dumps({"answer": "".join(draw.words(4)), "seed": request.options.seed}))
    prefix: list[str] = []
    last = request.messages[-1]
    if last.role == "tool":
        prefix = split_text(f'The tool says "{last.content}". ')
    elif request.image_count:
        prefix = split_text(f"[{request.image_count} image(s)] ")
    elif settings.echoes:
        prefix = split_text(f"{last.content} ")
    return prefix + draw.words(settings.tokens)


def _cut(tokens: list[str], stop: Iterable[str], budget: int) -> tuple[list[str], str, int]:
    """Apply the budget and the stop sequences: (tokens sent, done_reason, tokens generated)."""
    kept = tokens[:budget]
    text = "".join(kept)
    hits = [(text.find(word), len(word)) for word in stop if word and word in text]
    if not hits:
        return kept, "length" if len(tokens) > budget else "stop", len(kept)
    position, length = min(hits)
    sent: list[str] = []
    offset = generated = 0
    for token in kept:
        if offset >= position + length:
            break
        generated += 1
        if offset < position:
            sent.append(token[: position - offset])
        offset += len(token)
    return sent, "stop", generated


def _tool_calls(request: Inference, draw: Draw) -> tuple[Mapping[str, Any], ...]:
    last = request.messages[-1]
    if not request.tools or last.role != "user":
        return ()
    functions = [tool.get("function") or {} for tool in request.tools]
    wanted = functions if len(functions) == 1 else [f for f in functions if f.get("name") and f["name"] in last.content]
    return tuple(
        {
            "id": "call_" + draw.take(4).hex(),
            "function": {"index": index, "name": function.get("name", ""), "arguments": _arguments(function, draw)},
        }
        for index, function in enumerate(wanted)
    )


def _arguments(function: Mapping[str, Any], draw: Draw) -> object:
    parameters = function.get("parameters") or {}
    return write_document({**parameters, "type": "object"}, parameters, draw)


def _groups(tokens: Sequence[str], size: int) -> list[tuple[str, ...]]:
    return [tuple(tokens[start : start + size]) for start in range(0, len(tokens), size)]
