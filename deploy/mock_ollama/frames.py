"""The bytes of replies: NDJSON records and whole JSON answers in Ollama's field order (Ollama source: api/types.go)."""

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from deploy.mock_ollama.generation import Generation, Piece
from deploy.mock_ollama.inference import Inference
from deploy.mock_ollama.tokens import Draw

_ENCODER: Final = msgspec.json.Encoder()
_PROMPT_TOKEN_NS: Final = 250_000
_TOKEN_NS: Final = 8_000_000
_OVERHEAD_NS: Final = 1_234_567
_MAX_CONTEXT_TOKENS: Final = 512


def encode(value: object) -> bytes:
    """JSON as Go's json.Marshal writes it: `<`, `>`, `&` and the line separators are escaped."""
    data = _ENCODER.encode(value)
    for plain, escaped in ((b"<", b"\\u003c"), (b">", b"\\u003e"), (b"&", b"\\u0026")):
        data = data.replace(plain, escaped)
    return data.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")


def created_at(index: int) -> str:
    """The time stamp of record `index`; it is invented, so that the same request gives the same bytes."""
    return f"2026-11-21T12:{index // 6000 % 60:02}:{index // 100 % 60:02}.{index % 100:02}1234567Z"


def generation_records(request: Inference, generation: Generation, load_duration_ns: int) -> tuple[bytes, ...]:
    """The records of a stream, the last with `done: true` and the metrics; or the one whole answer."""
    logprobs = _Logprobs(request.top_logprobs)
    has_context = request.kind == "generate" and not request.raw
    tail: dict[str, Any] = {
        "done_reason": generation.done_reason,
        **({"context": _context(generation)} if has_context else {}),
        **_metrics(generation, load_duration_ns),
    }
    if not request.streams:
        entries = [entry for piece in generation.pieces for entry in logprobs.of(piece.tokens)]
        index = len(generation.pieces)
        return (encode(_record(request, index, merged(generation.pieces), done=True, tail=tail, logprobs=entries)),)
    bodies = [
        _record(request, index, piece, done=False, tail={}, logprobs=logprobs.of(piece.tokens))
        for index, piece in enumerate(generation.pieces)
    ]
    bodies.append(_record(request, len(bodies), Piece(), done=True, tail=tail, logprobs=[]))
    return tuple(encode(body) + b"\n" for body in bodies)


def merged(pieces: Iterable[Piece]) -> Piece:
    """All pieces in one, as a reply that does not stream has them."""
    kept = tuple(pieces)
    return Piece(
        thinking="".join(piece.thinking for piece in kept),
        content="".join(piece.content for piece in kept),
        tool_calls=tuple(call for piece in kept for call in piece.tool_calls),
    )


def bare_answer(request: Inference, done_reason: str) -> bytes:
    """The answer to an empty prompt: the model was loaded ("load") or thrown out ("unload"), without any usage."""
    return encode(_record(request, 0, Piece(), done=True, tail={"done_reason": done_reason}, logprobs=[]))


def rendered_answer(request: Inference) -> bytes:
    """The answer to `_debug_render_only`: the rendered prompt, without any usage."""
    debug = {"rendered_template": request.rendered, "image_count": request.image_count}
    return encode(_record(request, 0, Piece(), done=False, tail={"_debug_info": debug}, logprobs=[]))


def _record(
    request: Inference, index: int, piece: Piece, *, done: bool, tail: dict[str, Any], logprobs: list[Any]
) -> dict[str, Any]:
    model = request.model
    record: dict[str, Any] = {"model": request.requested_model}
    if model.remote_host:
        record |= {"remote_model": model.remote_model, "remote_host": model.remote_host}
    record["created_at"] = created_at(index)
    extra: dict[str, Any] = {}
    if piece.thinking:
        extra["thinking"] = piece.thinking
    if piece.tool_calls:
        extra["tool_calls"] = piece.tool_calls
    if request.kind == "chat":
        record["message"] = {"role": "assistant", "content": piece.content, **extra}
    else:
        record |= {"response": piece.content, **extra}
    record |= {"done": done, **tail}
    if logprobs:
        record["logprobs"] = logprobs
    return record


def _metrics(generation: Generation, load_duration_ns: int) -> dict[str, int]:
    prompt_ns = generation.prompt_eval_count * _PROMPT_TOKEN_NS
    eval_ns = generation.eval_count * _TOKEN_NS
    metrics = {
        "total_duration": load_duration_ns + prompt_ns + eval_ns + _OVERHEAD_NS,
        "load_duration": load_duration_ns,
        "prompt_eval_count": generation.prompt_eval_count,
        "prompt_eval_duration": prompt_ns,
        "eval_count": generation.eval_count,
        "eval_duration": eval_ns,
    }
    return {name: value for name, value in metrics.items() if value}


def _context(generation: Generation) -> list[int]:
    count = min(_MAX_CONTEXT_TOKENS, generation.prompt_eval_count + generation.eval_count)
    return [128000 + index for index in range(count)]


class _Logprobs:
    """Invented log probabilities: `top` is how many alternatives are asked for, None that none are wanted."""

    def __init__(self, top: int | None) -> None:
        self._top = top

    def of(self, tokens: Iterable[str]) -> list[dict[str, Any]]:
        return [] if self._top is None else [self._entry(token, self._top) for token in tokens]

    def _entry(self, token: str, top: int) -> dict[str, Any]:
        draw = Draw(token)
        first = -draw.integer(1, 900) / 1000
        entry = _token_logprob(token, first)
        if top:
            others = [
                _token_logprob(f"{word}{rank}", first - rank * 0.5)
                for rank, word in enumerate(draw.words(top - 1), start=1)
            ]
            entry["top_logprobs"] = [dict(entry), *others]
        return entry


def _token_logprob(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}
