"""Vectors of unit length from a hash of the text (Ollama source: server/routes.go EmbedHandler, normalize)."""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deploy.mock_ollama.catalogue import Model
from deploy.mock_ollama.inference import read_options
from deploy.mock_ollama.tokens import Draw, count_tokens


class EmbedError(ValueError):
    """An /api/embed request that Ollama answers with 400."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding:
    """The vectors of one request and the tokens read for them."""

    vectors: tuple[list[float], ...]
    prompt_eval_count: int


def read_input(value: object) -> tuple[str, ...]:
    """The texts of `input`: one string, a list of strings, or nothing; raises EmbedError."""
    if isinstance(value, str):
        return (value,) if value else ()
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise EmbedError("invalid input type")
    return tuple(value)


def embed(body: Mapping[str, Any], model: Model) -> Embedding:
    """Answer a decoded /api/embed body; raises EmbedError, or OptionError for a bad option."""
    texts = read_input(body.get("input"))
    num_ctx = read_options(body.get("options") or {}).num_ctx
    limit = min(num_ctx, model.context_length) if num_ctx > 0 else model.context_length
    counts = [count_tokens(text) for text in texts]
    if body.get("truncate") is False and any(count > limit for count in counts):
        raise EmbedError("the input length exceeds the context length")
    dimensions = body.get("dimensions", 0)
    vectors = tuple(vector(model, text, dimensions) for text in texts)
    return Embedding(vectors=vectors, prompt_eval_count=sum(min(count, limit) for count in counts))


def vector(model: Model, text: str, dimensions: int = 0) -> list[float]:
    """The vector of `text`, cut to `dimensions` when that is less than the model's own, of length one."""
    length = dimensions if 0 < dimensions < model.embedding_length else model.embedding_length
    raw = Draw(f"{model.name}\0{text}").take(2 * model.embedding_length)
    values = [value - 32767.5 for value in struct.unpack(f"<{model.embedding_length}H", raw)][:length]
    norm = math.sqrt(sum(value * value for value in values))
    return [round(value / norm, 9) for value in values]
