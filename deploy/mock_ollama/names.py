"""Model names as Ollama reads them (Ollama source: types/model/name.go, internal/modelref/modelref.go)."""

import re
from dataclasses import dataclass
from typing import Final

_PART: Final = {
    "host": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}"),
    "namespace": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}"),
    "model": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"),
    "tag": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"),
}


class ModelNameError(ValueError):
    """A name that Ollama refuses; `known` tells whether its own text is answered instead of the route's fallback."""

    def __init__(self, message: str, *, known: bool) -> None:
        super().__init__(message)
        self.known = known


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A parsed name: (host, namespace, model, tag) in lower case, and the source suffix `local`, `cloud` or none."""

    key: tuple[str, str, str, str]
    source: str

    @property
    def full_name(self) -> str:
        """The name with every part, which Ollama uses in some errors."""
        return "{}/{}/{}:{}".format(*self.key)


def parse_ref(raw: str) -> ModelRef:
    """Parse what a request calls `model`; raises ModelNameError."""
    text = raw.strip()
    if not text:
        raise ModelNameError("model is required", known=False)
    base, source = _source_suffix(text)
    if source and _source_suffix(base)[1]:
        raise ModelNameError(f'use either :local or :cloud, not both: "{text}"', known=True)
    return ModelRef(key=_parse_name(base), source=source)


def _source_suffix(text: str) -> tuple[str, str]:
    base, colon, suffix = text.rpartition(":")
    tag = suffix.strip()
    lower = tag.lower()
    if not colon:
        return text, ""
    if lower in {"cloud", "local"}:
        return base, lower
    if "/" not in tag and lower.endswith("-cloud"):
        return f"{base}:{tag[: -len('-cloud')]}", "cloud"
    return text, ""


def _parse_name(base: str) -> tuple[str, str, str, str]:
    rest = base.partition("://")[2] if "://" in base else base
    head, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        head, tag = rest, "latest"
    path, _, model = head.rpartition("/")
    host, _, namespace = path.rpartition("/")
    parts = {"host": host or "registry.ollama.ai", "namespace": namespace or "library", "model": model, "tag": tag}
    if not all(_PART[kind].fullmatch(part) for kind, part in parts.items()):
        raise ModelNameError("invalid model name", known=True)
    return parts["host"].lower(), parts["namespace"].lower(), model.lower(), tag.lower()
