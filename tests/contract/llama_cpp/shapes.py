"""What of two answers is compared: which keys there are, and of which types.

A shape maps the path of every value (``choices[].delta.content``) to the JSON types that it was seen with. What belongs
to OpenAI's API is what the types of OpenAI's own Python package declare, so that neither server is the judge.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import openai
from openai.types import Completion, CreateEmbeddingResponse, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.shared import ErrorObject
from pydantic import BaseModel, TypeAdapter, ValidationError

from tests.contract.llama_cpp.frames import Frame

Shape = dict[str, frozenset[str]]


class Listing(openai.BaseModel):
    """``GET /v1/models``: the SDK types its elements only."""

    object: typing.Literal["list"]
    data: list[Model]


class Error(openai.BaseModel):
    """The body of an error: the SDK types what it holds."""

    error: ErrorObject


class Kind(StrEnum):
    """What a frame is."""

    CHAT = "chat"
    CHAT_CHUNK = "chat chunk"
    COMPLETION = "completion"
    COMPLETION_CHUNK = "completion chunk"
    EMBEDDINGS = "embeddings"
    MODELS = "models"
    ERROR = "error"


TYPES: dict[Kind, type[BaseModel]] = {
    Kind.CHAT: ChatCompletion,
    Kind.CHAT_CHUNK: ChatCompletionChunk,
    Kind.COMPLETION: Completion,
    Kind.COMPLETION_CHUNK: Completion,
    Kind.EMBEDDINGS: CreateEmbeddingResponse,
    Kind.MODELS: Listing,
    Kind.ERROR: Error,
}


class What(StrEnum):
    """How two answers differ in one path."""

    MISSING = "OpenAI and llama.cpp have it, we do not"
    ONLY_THEIRS = "llama.cpp has it, OpenAI and we do not"
    ONLY_OURS = "we have it, OpenAI and llama.cpp do not"
    OTHER_TYPE = "we have another type"
    ONLY_NULL = "we have only null"


@dataclass(frozen=True, order=True)
class Difference:
    """One path in which frames of a kind differ. Below a key that only one of the two has nothing more is listed."""

    kind: Kind
    path: str
    what: What


def shape(frames: Iterable[object]) -> Shape:
    """The types of every path over all frames; the frame itself is the path ''."""
    seen: dict[str, set[str]] = {}
    for frame in frames:
        for path, name in _walk(frame, ""):
            seen.setdefault(path, set()).add(name)
    return {path: frozenset(names) for path, names in seen.items()}


def _walk(value: object, path: str) -> Iterator[tuple[str, str]]:
    yield path, _type_name(value)
    if isinstance(value, dict):
        for key, child in value.items():
            yield from _walk(child, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for child in value:
            yield from _walk(child, f"{path}[]")


def _type_name(value: object) -> str:
    return {type(None): "null", bool: "bool", int: "integer", float: "number", str: "text", list: "list"}.get(
        type(value), "object"
    )


def differences(kind: Kind, ours: Shape, theirs: Shape) -> set[Difference]:
    """In what our shape of a kind of frame differs from theirs."""
    found = set()
    for path, types_of_theirs in theirs.items():
        if path not in ours:
            what = What.MISSING if belongs_to_openai(kind, path) else What.ONLY_THEIRS
            found.add(Difference(kind, path, what))
            continue
        expected, got = types_of_theirs - {"null"}, ours[path] - {"null"}
        if expected and not got:
            found.add(Difference(kind, path, What.ONLY_NULL))
        # A whole number is a number too, but a client that expects whole numbers chokes on others.
        elif expected and not got <= (expected | {"integer"} if "number" in expected else expected):
            found.add(Difference(kind, path, What.OTHER_TYPE))
    for path in ours:
        if path not in theirs and not belongs_to_openai(kind, path):
            found.add(Difference(kind, path, What.ONLY_OURS))
    return _topmost(found)


def _topmost(found: set[Difference]) -> set[Difference]:
    absent = {each.path for each in found if each.what in (What.MISSING, What.ONLY_THEIRS, What.ONLY_OURS)}
    return {each for each in found if absent.isdisjoint(_parents(each.path))}


def _parents(path: str) -> Iterator[str]:
    for index, character in enumerate(path):
        if character == "." or path[index:].startswith("[]"):
            yield path[:index]


def belongs_to_openai(kind: Kind, path: str) -> bool:
    """Whether OpenAI's package declares this path in frames of this kind."""
    annotations: list[object] = [TYPES[kind]]
    for step in path.replace("[]", ".[]").split("."):
        annotations = [below for annotation in annotations for below in _below(annotation, step)]
    return bool(annotations)


def _below(annotation: object, step: str) -> Iterator[object]:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        for each in arguments:
            yield from _below(each, step)
    elif origin is typing.Annotated:
        yield from _below(arguments[0], step)
    elif origin is list and step == "[]":
        yield arguments[0]
    elif origin is dict:
        yield arguments[1]
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel) and step in annotation.model_fields:
        yield annotation.model_fields[step].annotation


def values(frames: Iterable[Frame], path: str) -> set[object]:
    """The texts and numbers at a path, over all frames."""
    found: list[Any] = list(frames)
    for step in path.replace("[]", ".[]").split("."):
        if step == "[]":
            found = [child for each in found for child in each]
        else:
            found = [each[step] for each in found if each.get(step) is not None]
    return set(found)


def faults(kind: Kind, frame: Frame) -> set[str]:
    """Paths of a frame that break the types of OpenAI's package: missing where required, or of another type.

    The package itself never looks: a client finds out when it uses the value.
    """
    try:
        TypeAdapter(TYPES[kind]).validate_python(frame, strict=True)
    except ValidationError as error:
        return {_path(fault["loc"]) for fault in error.errors()}
    return set()


def _path(location: Iterable[str | int]) -> str:
    path = ""
    for step in location:
        path += "[]" if isinstance(step, int) else f".{step}" if path else step
    return path
