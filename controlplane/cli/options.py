"""Fields of a request as options, and what was typed as a request again.

Nested messages are flattened into their leaves, which are named after their last field, or by their dotted path where
two leaves would share a name. A message whose only field is a repeated one counts as a leaf, so that an empty list can
be told from an unset one. What has no shape of its own on a command line (lists of messages, recursive messages, most
well-known types) is written as JSON.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import click
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from controlplane.cli import values
from controlplane.cli.descriptors import Catalogue, kebab

# Fields that operators know by another name.
_RENAMED = {"validate_only": "dry-run"}

_SCALARS: Mapping[int, click.ParamType[Any]] = {
    FieldDescriptor.TYPE_INT32: values.integer(32, signed=True),
    FieldDescriptor.TYPE_SINT32: values.integer(32, signed=True),
    FieldDescriptor.TYPE_SFIXED32: values.integer(32, signed=True),
    FieldDescriptor.TYPE_INT64: values.integer(64, signed=True),
    FieldDescriptor.TYPE_SINT64: values.integer(64, signed=True),
    FieldDescriptor.TYPE_SFIXED64: values.integer(64, signed=True),
    FieldDescriptor.TYPE_UINT32: values.integer(32, signed=False),
    FieldDescriptor.TYPE_FIXED32: values.integer(32, signed=False),
    FieldDescriptor.TYPE_UINT64: values.integer(64, signed=False),
    FieldDescriptor.TYPE_FIXED64: values.integer(64, signed=False),
    FieldDescriptor.TYPE_FLOAT: click.FLOAT,
    FieldDescriptor.TYPE_DOUBLE: click.FLOAT,
    FieldDescriptor.TYPE_STRING: click.STRING,
    FieldDescriptor.TYPE_BYTES: values.BASE64,
    FieldDescriptor.TYPE_BOOL: click.BOOL,
}

type Write = Callable[[Any, FieldDescriptor, Any], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How one kind of field is typed and written into its message."""

    write: Write
    type: click.ParamType[Any] | None = None  # None: a flag
    multiple: bool = False
    negatable: bool = False
    hint: str = ""  # what the type accepts, where that is not plain


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """One option of a command: the fields that lead to its value, and how it is called."""

    path: tuple[FieldDescriptor, ...]
    flag: str  # without the dashes
    shape: Shape
    positional: int  # 0 for an option only
    help: str

    @property
    def parameter(self) -> str:
        """The name of the value among a command's parameters."""
        return "field_" + "__".join(field.name for field in self.path)

    @property
    def argument(self) -> str:
        """The name of the same value where it is given by position."""
        return f"argument_{self.parameter}"

    @property
    def field(self) -> FieldDescriptor:
        """The field that holds the value."""
        return self.path[-1]


def leaves(request: Descriptor, catalogue: Catalogue) -> tuple[Leaf, ...]:
    """The options of a request, in order of declaration."""
    paths = list(_paths(request, ()))
    counts = Counter(_flag(path[-1:]) for path in paths)
    return tuple(
        Leaf(
            path=path,
            flag=_flag(path if counts[_flag(path[-1:])] > 1 else path[-1:]),
            shape=shape_of(path[-1]),
            positional=catalogue.annotation(path[-1], "positional") or 0,
            help=catalogue.comment(path[-1].full_name),
        )
        for path in paths
    )


def parameters(leaf: Leaf) -> Iterator[click.Parameter]:
    """The click parameters of a leaf: its option, and its argument if it may be given by position."""
    name = leaf.parameter
    help_text = option_help(leaf)
    shape = leaf.shape
    if shape.type is None:
        declaration = f"--{leaf.flag}/--no-{leaf.flag}" if shape.negatable else f"--{leaf.flag}"
        yield click.Option([name, declaration], is_flag=True, default=None, help=help_text)
        return
    yield click.Option([name, f"--{leaf.flag}"], type=shape.type, multiple=shape.multiple, help=help_text)
    if leaf.positional:
        yield click.Argument([leaf.argument], type=shape.type, required=False, metavar=f"[{leaf.flag.upper()}]")


def option_help(leaf: Leaf) -> str:
    """The field's comment on one line, with what its type accepts."""
    return " ".join(f"{leaf.help} {leaf.shape.hint}".split())


def fill(request: Message, given: Mapping[Leaf, Any]) -> None:
    """Write what was typed into the request; raises ``click.UsageError`` for what contradicts itself or cannot be."""
    chosen: dict[str, Leaf] = {}
    for leaf, value in given.items():
        for field in leaf.path:
            oneof = field.containing_oneof
            other = chosen.setdefault(oneof.full_name, leaf) if oneof is not None else leaf
            if other is not leaf and _member(other, oneof) != field.name:
                raise click.UsageError(f"--{other.flag} and --{leaf.flag} exclude each other")
        target: Any = request
        for field in leaf.path[:-1]:
            target = getattr(target, field.name)
        try:
            leaf.shape.write(target, leaf.field, value)
        except (ValueError, TypeError, json_format.ParseError) as fault:
            reason = " ".join(str(fault).split())
            raise click.UsageError(f"--{leaf.flag} does not fit {leaf.field.name}: {reason}") from fault


def _member(leaf: Leaf, oneof: Any) -> str:
    return next(field.name for field in leaf.path if field.containing_oneof == oneof)


def shape_of(field: FieldDescriptor) -> Shape:
    """How a field is typed; total over every field that protobuf can declare."""
    message = field.message_type
    if field.is_repeated:
        return _repeated_shape(field)
    if message is None:
        if field.type == FieldDescriptor.TYPE_BOOL:
            return Shape(write=_set, negatable=field.has_presence)
        return Shape(write=_set, type=_item_type(field))
    if message.full_name == "google.protobuf.Timestamp":
        return Shape(write=_set_seconds, type=values.TIMESTAMP, hint="Also a date, or +30d from now.")
    if message.full_name == "google.protobuf.Duration":
        return Shape(write=_set_seconds, type=values.DURATION, hint="Units: d, h, m, s (1h30m).")
    if not message.fields:
        return Shape(write=lambda target, item, _: getattr(target, item.name).SetInParent())
    if _is_list(message):
        return Shape(write=_set_list, type=values.Listed(_item_type(message.fields[0])), multiple=True)
    return Shape(write=_set_json, type=values.JSON)


def enum_names(enum: EnumDescriptor) -> dict[str, int]:
    """The values of an enum as operators type them, without its prefix and without the unspecified one."""
    return {short_enum_name(enum, value.name): value.number for value in enum.values if value.number != 0}


def short_enum_name(enum: EnumDescriptor, value_name: str) -> str:
    """``KEY_STATUS_ACTIVE`` of the enum ``KeyStatus`` as ``active``."""
    return kebab(value_name.removeprefix(kebab(enum.name).upper().replace("-", "_") + "_"))


def _paths(message: Descriptor, before: tuple[FieldDescriptor, ...]) -> Iterator[tuple[FieldDescriptor, ...]]:
    for field in message.fields:
        path = (*before, field)
        nested = field.message_type
        if nested is None or field.is_repeated or _is_leaf(nested):
            yield path
        else:
            yield from _paths(nested, path)


def _is_leaf(message: Descriptor) -> bool:
    well_known = message.full_name.startswith("google.protobuf.")
    return not message.fields or _is_list(message) or well_known or _recursive(message)


def _recursive(message: Descriptor) -> bool:
    pending, seen = [message], set()
    while pending:
        for field in pending.pop().fields:
            nested = field.message_type
            if nested is None or field.is_repeated:
                continue
            if nested.full_name == message.full_name:
                return True
            if nested.full_name not in seen:
                seen.add(nested.full_name)
                pending.append(nested)
    return False


def _is_list(message: Descriptor) -> bool:
    return len(message.fields) == 1 and message.fields[0].is_repeated and message.fields[0].message_type is None


def _flag(path: tuple[FieldDescriptor, ...]) -> str:
    if len(path) == 1 and path[0].name in _RENAMED:
        return _RENAMED[path[0].name]
    return ".".join(kebab(field.name) for field in path)


def _item_type(field: FieldDescriptor) -> click.ParamType[Any]:
    if field.enum_type is not None:
        return values.EnumChoice(enum_names(field.enum_type))
    return _SCALARS[field.type]


def _repeated_shape(field: FieldDescriptor) -> Shape:
    message = field.message_type
    if message is None:
        return Shape(write=_extend, type=values.Listed(_item_type(field)), multiple=True)
    if message.GetOptions().map_entry and message.fields_by_name["value"].message_type is None:
        return Shape(write=_set_pairs, type=values.PAIR, multiple=True)
    return Shape(write=_set_all_json, type=values.JSON, multiple=True)


def _set(target: Any, field: FieldDescriptor, value: Any) -> None:
    setattr(target, field.name, value)


def _set_seconds(target: Any, field: FieldDescriptor, value: values.SecondsNanos) -> None:
    inner = getattr(target, field.name)
    inner.SetInParent()
    inner.seconds, inner.nanos = value


def _set_list(target: Any, field: FieldDescriptor, value: tuple[tuple[Any, ...], ...]) -> None:
    inner = getattr(target, field.name)
    inner.SetInParent()
    _extend(inner, inner.DESCRIPTOR.fields[0], value)


def _extend(target: Any, field: FieldDescriptor, value: tuple[tuple[Any, ...], ...]) -> None:
    for items in value:
        getattr(target, field.name).extend(items)


def _set_json(target: Any, field: FieldDescriptor, value: Any) -> None:
    inner = getattr(target, field.name)
    inner.SetInParent()
    json_format.ParseDict(value, inner)


def _set_all_json(target: Any, field: FieldDescriptor, value: tuple[Any, ...]) -> None:
    whole: Any = list(value)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        if not all(isinstance(item, dict) for item in value):
            raise ValueError("must be JSON objects")
        whole = {key: item for part in value for key, item in part.items()}
    json_format.ParseDict({field.name: whole}, target)


def _set_pairs(target: Any, field: FieldDescriptor, value: tuple[tuple[str, str], ...]) -> None:
    json_format.ParseDict({field.name: dict(value)}, target)
