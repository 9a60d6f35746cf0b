"""Replies of ``/v1/embeddings``: numbers, or base64 of little-endian 32-bit floats (what OpenAI's package asks for)."""

from __future__ import annotations

import base64
import sys
from array import array
from collections.abc import Sequence

import msgspec

from dataplane.api import answers, problems
from dataplane.api.dialect import JSON
from dataplane.api.openai.usage import EmbeddingUsage, embedding_usage_of
from dataplane.errors import GatewayError
from dataplane.native import EmbedReply, Record
from dataplane.values import Dialect


class Embedding(msgspec.Struct, frozen=True, kw_only=True):
    """The embedding of one input."""

    object: str = "embedding"
    embedding: list[float] | str
    index: int


class Embeddings(msgspec.Struct, frozen=True, kw_only=True):
    """The whole reply."""

    object: str = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


_encode = msgspec.json.Encoder().encode


class EmbeddingRendering:
    """Implements ``dialect.Rendering``."""

    __slots__ = ("_base64", "_model", "_request_id")

    stream = False
    content_type = JSON

    def __init__(self, model: str, as_base64: bool, request_id: str, _created_s: int) -> None:  # noqa: FBT001
        self._model = model
        self._base64 = as_base64
        self._request_id = request_id

    def batch(self, records: Sequence[Record]) -> bytes:
        """Embeddings do not stream: asking for it is a mistake of ours."""
        raise TypeError(f"embeddings do not stream, not even {len(records)} records")

    def whole(self, reply: Sequence[Record] | EmbedReply) -> bytes:
        """See ``Rendering``."""
        embedded = answers.embedded(reply)
        data = [
            Embedding(embedding=_packed(vector) if self._base64 else vector, index=index)
            for index, vector in enumerate(embedded.embeddings)
        ]
        return _encode(Embeddings(data=data, model=self._model, usage=embedding_usage_of(embedded)))

    def broken(self, error: GatewayError) -> bytes:
        """See ``Rendering``."""
        return problems.broken(error, Dialect.OPENAI, self._request_id)

    def __repr__(self) -> str:
        return f"EmbeddingRendering(base64={self._base64})"


def _packed(vector: Sequence[float]) -> str:
    floats = array("f", vector)
    if sys.byteorder == "big":
        floats.byteswap()
    return base64.b64encode(floats.tobytes()).decode("ascii")
