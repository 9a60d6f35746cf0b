"""What would break who was built against the last release: ``uv run python proto/breaking.py``.

Compares the committed descriptors with those of the last release (``released.binpb``): names, numbers and types on the
wire and in JSON, and everything that generated code refers to. It is what ``buf breaking`` checks in its category FILE
as far as these protos go; buf is used as well where it is installed. A release replaces the image:

    uv run python proto/breaking.py --release
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)

ROOT = Path(__file__).resolve().parent
CURRENT = ROOT / "neuronetz" / "descriptors.binpb"
RELEASED = ROOT / "released.binpb"
_OWN = "neuronetz/"


def breaks(before: FileDescriptorSet, after: FileDescriptorSet) -> list[str]:
    """Every change from ``before`` to ``after`` that breaks somebody, one sentence each; in order of declaration."""
    files = {file.name: file for file in after.file}
    found = []
    for old in before.file:
        if not old.name.startswith(_OWN):
            continue
        new = files.get(old.name)
        if new is None:
            found.append(f"file {old.name} is gone")
            continue
        if old.package != new.package:
            found.append(f"file {old.name} is of package {new.package}, was {old.package}")
        found += _messages(old.package, old.message_type, new.message_type)
        found += _enums(old.package, old.enum_type, new.enum_type)
        found += _services(old.package, old.service, new.service)
        found += _extensions(old.package, old.extension, new.extension)
    return found


def _messages(scope: str, before: Iterable[DescriptorProto], after: Iterable[DescriptorProto]) -> Iterator[str]:
    known = {message.name: message for message in after}
    for old in before:
        name = f"{scope}.{old.name}"
        new = known.get(old.name)
        if new is None:
            yield f"message {name} is gone"
            continue
        yield from _fields(name, old, new)
        yield from _messages(name, old.nested_type, new.nested_type)
        yield from _enums(name, old.enum_type, new.enum_type)


def _fields(name: str, old: DescriptorProto, new: DescriptorProto) -> Iterator[str]:
    known = {field.number: field for field in new.field}
    reserved = set(new.reserved_name)
    for field in old.field:
        now = known.get(field.number)
        if now is not None:
            yield from _field(f"{name}.{field.name}", field, now, old, new)
        elif field.name not in reserved or not any(
            area.start <= field.number < area.end for area in new.reserved_range
        ):
            yield f"field {name}.{field.name} is gone without its number and name being reserved"
    for area in old.reserved_range:
        taken = [field.name for field in new.field if area.start <= field.number < area.end]
        yield from (f"field {name}.{field} has a reserved number" for field in taken)


def _field(
    name: str, old: FieldDescriptorProto, new: FieldDescriptorProto, before: DescriptorProto, after: DescriptorProto
) -> Iterator[str]:
    if old.name != new.name:
        yield f"field {name} is called {new.name}"
    if old.json_name != new.json_name:
        yield f"field {name} is called {new.json_name} in JSON, was {old.json_name}"
    if (old.type, old.type_name) != (new.type, new.type_name):
        yield f"field {name} has another type"
    if old.label != new.label:
        yield f"field {name} is repeated or no longer"
    if old.proto3_optional != new.proto3_optional:
        yield f"field {name} can be unset or no longer"
    if _oneof(old, before) != _oneof(new, after):
        yield f"field {name} is of another oneof"


def _oneof(field: FieldDescriptorProto, message: DescriptorProto) -> str:
    real = field.HasField("oneof_index") and not field.proto3_optional
    return message.oneof_decl[field.oneof_index].name if real else ""


def _enums(scope: str, before: Iterable[EnumDescriptorProto], after: Iterable[EnumDescriptorProto]) -> Iterator[str]:
    known = {enum.name: enum for enum in after}
    for old in before:
        new = known.get(old.name)
        if new is None:
            yield f"enum {scope}.{old.name} is gone"
            continue
        names = {value.number: value.name for value in new.value}
        for value in old.value:
            name = f"{scope}.{old.name}.{value.name}"
            if value.number not in names and value.name not in new.reserved_name:
                yield f"enum value {name} is gone without its name being reserved"
            elif names.get(value.number, value.name) != value.name:
                yield f"enum value {name} is called {names[value.number]}"


def _services(
    scope: str, before: Iterable[ServiceDescriptorProto], after: Iterable[ServiceDescriptorProto]
) -> Iterator[str]:
    known = {service.name: {method.name: method for method in service.method} for service in after}
    for old in before:
        methods = known.get(old.name)
        if methods is None:
            yield f"service {scope}.{old.name} is gone"
            continue
        for method in old.method:
            name = f"{scope}.{old.name}.{method.name}"
            new = methods.get(method.name)
            if new is None:
                yield f"RPC {name} is gone"
            elif (method.input_type, method.output_type) != (new.input_type, new.output_type):
                yield f"RPC {name} has another request or answer"
            elif (method.client_streaming, method.server_streaming) != (new.client_streaming, new.server_streaming):
                yield f"RPC {name} streams or no longer"


def _extensions(
    scope: str, before: Iterable[FieldDescriptorProto], after: Iterable[FieldDescriptorProto]
) -> Iterator[str]:
    known = {field.name: (field.number, field.type, field.label, field.extendee) for field in after}
    for old in before:
        if known.get(old.name) != (old.number, old.type, old.label, old.extendee):
            yield f"option {scope}.{old.name} is gone or another"


def load(path: Path) -> FileDescriptorSet:
    """A descriptor set in a file."""
    return FileDescriptorSet.FromString(path.read_bytes())


def release() -> None:
    """Makes the present descriptors, without comments, what later ones are compared with."""
    files = load(CURRENT)
    for file in files.file:
        file.ClearField("source_code_info")
    RELEASED.write_bytes(files.SerializeToString(deterministic=True))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--release", action="store_true", help="compare with the present protos from now on")
    if parser.parse_args().release:
        release()
    broken = breaks(load(RELEASED), load(CURRENT))
    sys.stderr.writelines(f"{sentence}\n" for sentence in broken)
    sys.exit(1 if broken else 0)
