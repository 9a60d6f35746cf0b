"""Judging what a backend answered: names by the strict grammar, texts bounded, everything unexpected left out.

The shapes are those of Ollama's ``ListResponse`` and ``ShowResponse`` (source: ollama ``api/types.go``, August 2026).
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from shared import modelname
from shared.modelname import CanonicalName, ModelNameError
from shared.records import ModelRecord

MAX_MODELS = 1000
MAX_TEXT_LENGTH = 100
MAX_FAMILIES = 16
MAX_CAPABILITIES = 32
MAX_CONTEXT_LENGTH = 2**31 - 1
MAX_SIZE_BYTES = 2**53

_DIGEST = re.compile(r"(?:sha256:)?[0-9a-f]{12,64}", re.ASCII)
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{5,20}(?:Z|[+-][0-9]{2}:[0-9]{2})", re.ASCII)
_TEXT = re.compile(r"[\x20-\x7e]*")
# msgspec's own reading takes 13 µs for a number such as ``1e300``: nine seconds for an answer full of them.
_decode = msgspec.json.Decoder(float_hook=float).decode


class AnswerError(ValueError):
    """An answer that cannot be used; its text says why, without quoting it."""


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """The usable models of a backend, and how many entries were left out."""

    models: tuple[ModelRecord, ...] = ()
    skipped: int = 0


class Details(msgspec.Struct, frozen=True, kw_only=True):
    """What a backend knows of one model; empty and 0 where it did not say."""

    capabilities: tuple[str, ...] = ()
    # In tokens.
    context_length: int = 0
    embedding_length: int = 0
    # UTF-8 bytes of the template, the system prompt and the built-in messages.
    template_bytes: int = 0


def listing(raw: bytes) -> Listing:
    """The models in an answer to ``/api/tags``.

    Entries are left out and counted when they have no valid name, would run somewhere else (``remote_host``, a cloud
    suffix), or repeat a name. Raises ``AnswerError`` when the answer is no list of at most 1 000 entries.
    """
    entries = _object(raw).get("models", _MISSING)
    if entries is None:  # Go's empty slice
        return Listing()
    if not isinstance(entries, list):
        raise AnswerError("not a list of models")
    if len(entries) > MAX_MODELS:
        raise AnswerError("too many models")
    models: dict[CanonicalName, ModelRecord] = {}
    for entry in entries:
        model = _model(entry)
        if model is not None:
            models.setdefault(model.canonical, model)
    return Listing(models=tuple(models.values()), skipped=len(entries) - len(models))


def details(raw: bytes) -> Details:
    """What an answer to ``/api/show`` says; raises ``AnswerError`` when it is no JSON object."""
    answer = _object(raw)
    capabilities = answer.get("capabilities")
    info = answer.get("model_info")
    info = info if isinstance(info, dict) else {}
    architecture = _text(info.get("general.architecture"))
    return Details(
        capabilities=_texts(capabilities, MAX_CAPABILITIES),
        context_length=_count(info.get(f"{architecture}.context_length"), MAX_CONTEXT_LENGTH),
        embedding_length=_count(info.get(f"{architecture}.embedding_length"), MAX_CONTEXT_LENGTH),
        template_bytes=_size(answer.get("template")) + _size(answer.get("system")) + _messages(answer.get("messages")),
    )


def is_cloud_disabled(raw: bytes) -> bool:
    """Whether an answer to ``/api/status`` says so; raises ``AnswerError`` when it says neither.

    Source: ollama ``api/types.go`` ``StatusResponse``, August 2026.
    """
    cloud = _object(raw).get("cloud")
    disabled = cloud.get("disabled") if isinstance(cloud, dict) else None
    if not isinstance(disabled, bool):
        raise AnswerError("no word about the cloud")
    return disabled


_MISSING = object()


def _object(raw: bytes) -> dict[str, Any]:
    try:
        answer = _decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as fault:
        raise AnswerError("not JSON") from fault
    if not isinstance(answer, dict):
        raise AnswerError("not a JSON object")
    return answer


def _model(entry: Any) -> ModelRecord | None:
    if not isinstance(entry, dict) or entry.get("remote_host") or entry.get("remote_model"):
        return None
    name = entry.get("name")
    alias = entry.get("model", name)
    if not isinstance(name, str) or not isinstance(alias, str) or name != name.strip() or "://" in name:
        return None
    try:
        canonical = modelname.canonical(name)
        if alias and modelname.canonical(alias) != canonical:
            return None
    except ModelNameError:
        return None
    about = entry.get("details")
    about = about if isinstance(about, dict) else {}
    return ModelRecord(
        name=name,
        canonical=canonical,
        digest=_matching(_DIGEST, entry.get("digest")),
        size_bytes=_count(entry.get("size"), MAX_SIZE_BYTES),
        modified_at=_matching(_MOMENT, entry.get("modified_at")),
        family=_text(about.get("family")),
        families=_texts(about.get("families"), MAX_FAMILIES),
        format=_text(about.get("format")),
        parameter_size=_text(about.get("parameter_size")),
        quantization=_text(about.get("quantization_level")),
    )


def _text(value: Any) -> str:
    """A printable ASCII text of bounded length; anything else becomes empty."""
    usable = isinstance(value, str) and len(value) <= MAX_TEXT_LENGTH and _TEXT.fullmatch(value) is not None
    return value if usable else ""


def _texts(values: Any, most: int) -> tuple[str, ...]:
    if not isinstance(values, list):
        return ()
    return tuple(text for value in values[:most] if (text := _text(value)))


def _matching(pattern: re.Pattern[str], value: Any) -> str:
    return value if isinstance(value, str) and len(value) <= MAX_TEXT_LENGTH and pattern.fullmatch(value) else ""


def _count(value: Any, most: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most else 0


def _size(value: Any) -> int:
    return len(value.encode("utf-8", "surrogatepass")) if isinstance(value, str) else 0


def _messages(values: Any) -> int:
    """Bytes of the messages of a Modelfile, which Ollama puts before those of every chat."""
    if not isinstance(values, list):
        return 0
    return sum(_size(value.get("role")) + _size(value.get("content")) for value in values if isinstance(value, dict))
