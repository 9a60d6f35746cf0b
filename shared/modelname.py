"""Names of models, compared as Ollama compares them.

Ollama reads ``[scheme://][host/][namespace/]model[:tag]`` with the defaults ``registry.ollama.ai``, ``library`` and
``latest``, trims white space, ignores case, strips a ``:local`` suffix and sends ``:cloud`` and ``-cloud`` names to
ollama.com (source: ollama ``types/model/name.go`` and ``internal/modelref``, August 2026). A grant for ``llama3`` must
therefore hold for ``LLAMA3:latest`` and for nothing else, and a name that leaves the building must never look local.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NewType

CanonicalName = NewType("CanonicalName", str)

DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"
MAX_NAME_LENGTH = 200

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}", re.ASCII)
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}", re.ASCII)
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}", re.ASCII)


class ModelNameError(ValueError):
    """A text that is no model name, or a name that Ollama would run somewhere else."""


@lru_cache(maxsize=4096)
def canonical(name: str) -> CanonicalName:
    """The one spelling of a model: lower case, ``host/namespace/model:tag`` with every default written out.

    Raises ``ModelNameError`` for texts outside the grammar, for names longer than 200 characters and for names with
    a source suffix (``:cloud``, ``-cloud``, ``:local``), which are never resolved to a local model.
    """
    text = name.strip(" \t\r\n")
    if not text or len(text) > MAX_NAME_LENGTH or not text.isascii():
        raise ModelNameError("not a model name")
    scheme = _SCHEME.match(text)
    if scheme is not None:
        text = text[scheme.end() :]
    path, separator, tag = text.rpartition(":")
    if not separator or "/" in tag:
        path, tag = text, DEFAULT_TAG
    host, namespace, model = _split_path(path)
    lowered = tag.lower()
    if lowered in ("cloud", "local") or lowered.endswith("-cloud"):
        raise ModelNameError("a name with a source suffix")
    valid = (
        _HOST.fullmatch(host) and _NAMESPACE.fullmatch(namespace) and _PART.fullmatch(model) and _PART.fullmatch(tag)
    )
    if not valid:
        raise ModelNameError("not a model name")
    return CanonicalName(f"{host}/{namespace}/{model}:{tag}".lower())


def display(name: CanonicalName) -> str:
    """The short spelling of a canonical name, without the parts that are defaults (the tag is kept)."""
    short = name.removeprefix(f"{DEFAULT_HOST}/")
    return short.removeprefix(f"{DEFAULT_NAMESPACE}/")


def _split_path(path: str) -> tuple[str, str, str]:
    parts = path.split("/")
    match parts:
        case [model]:
            return DEFAULT_HOST, DEFAULT_NAMESPACE, model
        case [namespace, model]:
            return DEFAULT_HOST, namespace, model
        case [host, namespace, model]:
            return host, namespace, model
        case _:
            raise ModelNameError("not a model name")
