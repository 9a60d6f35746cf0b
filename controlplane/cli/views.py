"""Answers as what people read: facts and listings of short texts. Pure; `render` puts them on a terminal.

A repeated message field becomes a listing with a column per field; one whose rows hold rows of their own becomes one
listing per row. Everything else becomes facts, nested messages flattened into theirs. Nothing here knows a message.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from controlplane.cli.descriptors import Catalogue, first_sentence
from controlplane.cli.options import short_enum_name

NOTHING = "none"

# People read moments to the second; documents carry the fraction.
_SECONDS_LENGTH = len("2027-01-31T00:00:00")

_NUMBERS = frozenset(
    {
        FieldDescriptor.CPPTYPE_INT32,
        FieldDescriptor.CPPTYPE_INT64,
        FieldDescriptor.CPPTYPE_UINT32,
        FieldDescriptor.CPPTYPE_UINT64,
        FieldDescriptor.CPPTYPE_FLOAT,
        FieldDescriptor.CPPTYPE_DOUBLE,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Names and texts of one thing."""

    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Rows under columns; ``numeric`` tells which columns are aligned to the right."""

    title: str
    columns: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A sentence about what was shown."""

    text: str


type View = Facts | Listing | Note


def views(message: Message, catalogue: Catalogue) -> Iterator[View]:
    """What to show of an answer, in the order of its fields."""
    facts: list[FieldDescriptor] = []
    for field in _fields(message):
        if _has_rows(field):
            yield from _facts(message, facts, catalogue)
            facts = []
            yield from _listings(field, getattr(message, field.name), catalogue)
        else:
            facts.append(field)
    yield from _facts(message, facts, catalogue)
    for field in _fields(message):
        if catalogue.annotation(field, "shown_once") and getattr(message, field.name):
            yield Note(text=f"{field.name}: {' '.join(catalogue.comment(field.full_name).split())}")


def line(message: Message) -> str:
    """A message on one line, for streams."""
    return "  ".join(f"{name}={text}" for name, text in _flat(message, _fields(message), None))


def _has_rows(field: FieldDescriptor) -> bool:
    nested = field.message_type
    return field.is_repeated and nested is not None and not nested.GetOptions().map_entry


def _facts(message: Message, fields: Sequence[FieldDescriptor], catalogue: Catalogue) -> Iterator[Facts]:
    rows = tuple(_flat(message, fields, catalogue))
    if rows:
        yield Facts(rows=rows)


def _flat(
    message: Message, fields: Sequence[FieldDescriptor], catalogue: Catalogue | None
) -> Iterator[tuple[str, str]]:
    found = [(path, text) for path, text in _leaf_texts(message, fields, (), catalogue) if text]
    names = Counter(path[-1] for path, _ in found)
    seen: set[tuple[str, str]] = set()
    for path, text in found:
        # The same name with the same text says nothing new: an answer often repeats a field of what it holds.
        if (path[-1], text) not in seen:
            seen.add((path[-1], text))
            texts = {other for other_path, other in found if other_path[-1] == path[-1]}
            yield path[-1] if names[path[-1]] == 1 or len(texts) == 1 else ".".join(path), text


def _leaf_texts(
    message: Message, fields: Sequence[FieldDescriptor], before: tuple[str, ...], catalogue: Catalogue | None
) -> Iterator[tuple[tuple[str, ...], str]]:
    for field in fields:
        path = (*before, field.name)
        if _is_nested(field):
            if message.HasField(field.name):
                nested = getattr(message, field.name)
                yield from _leaf_texts(nested, _fields(nested), path, catalogue)
        else:
            yield path, text_of(message, field, catalogue)


def _is_nested(field: FieldDescriptor) -> bool:
    nested = field.message_type
    if nested is None or field.is_repeated or nested.full_name.startswith("google.protobuf."):
        return False
    return not (len(nested.fields) == 1 and nested.fields[0].is_repeated)


def _listings(field: FieldDescriptor, rows: Sequence[Message], catalogue: Catalogue) -> Iterator[View]:
    columns = list(field.message_type.fields) if field.message_type is not None else []
    inner = next((column for column in columns if _has_rows(column)), None)
    if inner is not None and rows:
        others = [column for column in columns if not _has_rows(column)]
        for row in rows:
            title = ", ".join(f"{name} {text}" for name, text in _flat(row, others, None))
            for listing in _listings(inner, getattr(row, inner.name), catalogue):
                yield _titled(listing, title or field.name)
        return
    shown = [column for column in columns if not catalogue.annotation(column, "detail")]
    cells = [tuple(text_of(row, column, None) for column in shown) for row in rows]
    used = [index for index in range(len(shown)) if any(row[index] for row in cells)]
    yield Listing(
        title=field.name,
        columns=tuple(shown[index].name for index in used),
        numeric=tuple(_is_number(shown[index]) for index in used),
        rows=tuple(tuple(row[index] for index in used) for row in cells),
    )


def _titled(view: View, title: str) -> View:
    if not isinstance(view, Listing):
        return view
    return Listing(title=title, columns=view.columns, numeric=view.numeric, rows=view.rows)


def text_of(message: Message, field: FieldDescriptor, catalogue: Catalogue | None) -> str:
    """A field as a short text, empty when there is nothing to say; with a catalogue enum values are explained."""
    if field.has_presence and not message.HasField(field.name):
        return ""
    value: Any = getattr(message, field.name)
    nested = field.message_type
    if nested is not None and nested.GetOptions().map_entry:
        return ", ".join(f"{key}={value[key]}" for key in sorted(value))
    if field.is_repeated:
        return ", ".join(_item_text(field, item, None) for item in value)
    return _item_text(field, value, catalogue)


def _item_text(field: FieldDescriptor, value: Any, catalogue: Catalogue | None) -> str:
    nested = field.message_type
    if nested is not None:
        if nested.full_name == "google.protobuf.Timestamp":
            return f"{value.ToJsonString()[:_SECONDS_LENGTH]}Z"
        if nested.full_name.startswith("google.protobuf."):
            return str(value.ToJsonString()) if hasattr(value, "ToJsonString") else str(value).strip()
        if len(nested.fields) == 1 and nested.fields[0].is_repeated:
            return text_of(value, nested.fields[0], None) or NOTHING
        return "; ".join(f"{name} {text}" for name, text in _flat(value, _fields(value), None))
    if field.enum_type is not None:
        return _enum_text(field, value, catalogue)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return "yes" if value else "no"
    # Control characters could make a terminal show something else than what was answered.
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in str(value))


def _enum_text(field: FieldDescriptor, number: int, catalogue: Catalogue | None) -> str:
    enum = field.enum_type
    if enum is None or number == 0:
        return ""
    known = enum.values_by_number.get(number)
    if known is None:
        return str(number)
    name = short_enum_name(enum, known.name)
    comment = first_sentence(catalogue.comment(f"{enum.full_name}.{known.name}")) if catalogue is not None else ""
    return f"{name} ({comment.removesuffix('.')})" if comment else name


def _is_number(field: FieldDescriptor) -> bool:
    return not field.is_repeated and field.cpp_type in _NUMBERS


def _fields(message: Message) -> list[FieldDescriptor]:
    fields: Any = message.DESCRIPTOR.fields
    return list(fields)
