"""Answers from the snapshot: ``/api/tags``, ``/api/version``, ``/api/show`` and ``/v1/models``.

The caller hands over the effective set; nothing here decides who may see what. Names are the backend's spelling.

``/api/tags`` carries digests: Ollama's own client shows their first 12 characters and fails without them, programs
compare them to notice a new version, and who may use a model may know which one it is. What points elsewhere (remote
models and hosts) has no field here. ``/api/show`` is reduced to what a client needs to use a model: its template,
system prompt, licence, parameters and Modelfile stay with the operator.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from dataplane.api import answers, rules
from dataplane.api.strict_json import Closed, read_body
from dataplane.errors import ForbiddenError
from shared.modelname import CanonicalName
from shared.records import ModelRecord

# Go's zero time: what Ollama writes for a moment that is not known.
UNKNOWN_TIME = "0001-01-01T00:00:00Z"

_ENCODER = msgspec.json.Encoder()


class ShowFields(msgspec.Struct, frozen=True):
    """``POST /api/show``; ``name`` is the legacy spelling of ``model``."""

    model: str | None = None
    name: str | None = None


SHOW = Closed(ShowFields, ignored=("verbose", "system", "template", "options"))


def tags(models: Iterable[ModelRecord]) -> bytes:
    """``GET /api/tags``."""
    listed = [
        {
            "name": model.name,
            "model": model.name,
            "modified_at": _modified_at(model),
            "size": model.size_bytes,
            "digest": model.digest,
            "details": _details(model),
        }
        for model in models
    ]
    return _ENCODER.encode({"models": listed})


def version(text: str) -> bytes:
    """``GET /api/version``."""
    return _ENCODER.encode({"version": text})


def parse_show(body: bytes) -> CanonicalName:
    """Which model ``POST /api/show`` asks for.

    Raises ``RequestError`` for a body that breaks a rule, ``ForbiddenError`` for a name that can be no model here.
    """
    fields, _ = read_body(body, SHOW, ShowFields)
    return rules.resolve(rules.model_name(fields.model or fields.name))


def show(model: ModelRecord) -> bytes:
    """``POST /api/show``, reduced."""
    info: dict[str, Any] = {}
    if model.family:
        info["general.architecture"] = model.family
        if model.context_length:
            info[f"{model.family}.context_length"] = model.context_length
        if model.embedding_length:
            info[f"{model.family}.embedding_length"] = model.embedding_length
    return _ENCODER.encode(
        {
            "details": _details(model),
            "model_info": info,
            "capabilities": model.capabilities,
            "modified_at": _modified_at(model),
        }
    )


def openai_models(models: Iterable[ModelRecord]) -> bytes:
    """``GET /v1/models``; an empty list where Ollama writes null."""
    return _ENCODER.encode({"object": "list", "data": [_openai_model(model) for model in models]})


def parse_model_id(tail: bytes) -> CanonicalName:
    """Which model the tail of ``/v1/models/{id}`` names: as sent, percent-decoded once, ``/`` and ``:`` included.

    Raises ``ForbiddenError`` for everything that can be no model here.
    """
    try:
        return rules.resolve(unquote_to_bytes(tail).decode())
    except UnicodeDecodeError as fault:
        raise ForbiddenError("model_not_allowed") from fault


def openai_model(model: ModelRecord) -> bytes:
    """``GET /v1/models/{id}``."""
    return _ENCODER.encode(_openai_model(model))


def _openai_model(model: ModelRecord) -> dict[str, Any]:
    # host/namespace/model:tag; the host may hold a colon but no slash.
    namespace = model.canonical.split("/")[-2]
    return {"id": model.name, "object": "model", "created": _created_s(model), "owned_by": namespace}


def _details(model: ModelRecord) -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": model.format,
        "family": model.family,
        "families": model.families,
        "parameter_size": model.parameter_size,
        "quantization_level": model.quantization,
    }


def _modified_at(model: ModelRecord) -> str:
    return UNKNOWN_TIME if _moment(model) is None else model.modified_at


def _created_s(model: ModelRecord) -> int:
    moment = _moment(model)
    return 0 if moment is None else max(int(moment.timestamp()), 0)


def _moment(model: ModelRecord) -> datetime | None:
    if not answers.is_timestamp(model.modified_at):
        return None
    try:
        return datetime.fromisoformat(model.modified_at)
    except ValueError:  # the form of a moment, but none: the 31st of February
        return None
