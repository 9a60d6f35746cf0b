"""The admin API as data: its RPCs, messages, comments and annotations, read from a compiled descriptor set.

Everything lives in a descriptor pool of its own, so that no generated stub is needed and a test can bring a service
that nothing else knows. The set must be compiled with ``--include_source_info``: comments become help.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from typing import Any, cast

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message

ADMIN_PACKAGE = "neuronetz.admin.v1"

# What the verb of an RPC does to something that somebody may be using.
_DESTRUCTIVE = frozenset({"clear", "delete", "remove", "revoke", "suspend"})
_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_SENTENCE = re.compile(r"(.+?[.!?])(?=\s|$)", re.DOTALL)

# Numbers of the fields of descriptor.proto that lead to a comment (SourceCodeInfo.Location.path).
_MESSAGES, _ENUMS, _SERVICES = 4, 5, 6
_FIELDS, _NESTED_MESSAGES, _NESTED_ENUMS = 2, 3, 4
_VALUES, _METHODS = 2, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class RPC:
    """One RPC as a command: what it is called and what travels."""

    name: str
    aliases: tuple[str, ...]
    section: str  # the service without "Service"
    method: str  # the path on the wire, /package.Service/Method
    request: Descriptor
    response: Descriptor
    client_streaming: bool
    server_streaming: bool
    comment: str
    annotated_destructive: bool  # verbs speak for themselves

    @property
    def verb(self) -> str:
        """The first word of the method: ``revoke`` of ``RevokeKey``."""
        return kebab(self.method.rpartition("/")[2]).partition("-")[0]

    @property
    def is_destructive(self) -> bool:
        """Whether it ends something that somebody may be using: by annotation, or by its verb."""
        return self.annotated_destructive or self.verb in _DESTRUCTIVE


class Catalogue:
    """All services of one protobuf package in a descriptor set."""

    def __init__(self, files: descriptor_pb2.FileDescriptorSet, package: str = ADMIN_PACKAGE) -> None:
        self._files = files
        self._package = package
        self._pool = descriptor_pool.DescriptorPool()
        for file in files.file:
            self._pool.Add(file)
        self._comments = {name: text for file in files.file for name, text in _comments_of(file)}

    @classmethod
    def packaged(cls) -> "Catalogue":
        """The admin API of this release, as installed with the package ``neuronetz``."""
        data = resources.files("neuronetz").joinpath("descriptors.binpb").read_bytes()
        return cls(descriptor_pb2.FileDescriptorSet.FromString(data))

    @cached_property
    def rpcs(self) -> tuple[RPC, ...]:
        """Every RPC in order of declaration; one whose name two services share carries its service's before it."""
        methods = [method for service in self._services() for method in service.methods]
        names = Counter(kebab(method.name) for method in methods)
        return tuple(self._rpc(method, unique=names[kebab(method.name)] == 1) for method in methods)

    def find(self, name: str) -> RPC | None:
        """The RPC of a command, also by an alias."""
        return next((rpc for rpc in self.rpcs if name == rpc.name or name in rpc.aliases), None)

    def comment(self, full_name: str) -> str:
        """The comment of a message, field, enum value, service or method by its full name; empty without one."""
        return self._comments.get(full_name, "")

    def message(self, descriptor: Descriptor) -> Message:
        """A new, empty message."""
        return self.message_class(descriptor)()

    def message_class(self, descriptor: Descriptor) -> type[Message]:
        """The class of a message."""
        found: type[Message] = message_factory.GetMessageClass(descriptor)
        return found

    def annotation(self, item: FieldDescriptor | MethodDescriptor, name: str) -> Any:
        """The value of an option that ``annotations.proto`` declares (its default where not given); None if unknown."""
        extension = self._extensions.get(name)
        if extension is None:
            return None
        # The option's bytes are parsed again because GetOptions knows only the extensions of the global pool.
        holder: Any = message_factory.GetMessageClass(cast("Descriptor", extension.containing_type))
        return holder.FromString(item.GetOptions().SerializeToString()).Extensions[extension]

    @cached_property
    def _extensions(self) -> dict[str, FieldDescriptor]:
        return {
            extension.name: self._pool.FindExtensionByName(f"{file.package}.{extension.name}")
            for file in self._files.file
            for extension in file.extension
            if file.package == self._package
        }

    def _services(self) -> Iterator[ServiceDescriptor]:
        for file in self._files.file:
            if file.package == self._package:
                for service in file.service:
                    yield self._pool.FindServiceByName(f"{file.package}.{service.name}")

    def _rpc(self, method: MethodDescriptor, *, unique: bool) -> RPC:
        service = method.containing_service
        section = service.name.removesuffix("Service") or service.name
        name = kebab(method.name)
        return RPC(
            name=name if unique else f"{kebab(section)}-{name}",
            aliases=tuple(self.annotation(method, "alias") or ()),
            section=section,
            method=f"/{service.full_name}/{method.name}",
            request=method.input_type,
            response=method.output_type,
            client_streaming=method.client_streaming,
            server_streaming=method.server_streaming,
            comment=self.comment(method.full_name),
            annotated_destructive=bool(self.annotation(method, "destructive")),
        )


def kebab(name: str) -> str:
    """``CreateKey`` and ``create_key`` as ``create-key``."""
    return _WORD_START.sub("-", name).replace("_", "-").lower()


def first_sentence(comment: str) -> str:
    """What a list has room for; the whole text when it has no end."""
    text = " ".join(comment.split("\n\n", maxsplit=1)[0].split())
    found = _SENTENCE.match(text)
    return found[1] if found else text


def _comments_of(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[str, str]]:
    by_path = {
        tuple(location.path): location.leading_comments or location.trailing_comments
        for location in file.source_code_info.location
        if location.leading_comments or location.trailing_comments
    }
    for path, name in _names_of(file):
        if path in by_path:
            lines = (line.removeprefix(" ").rstrip() for line in by_path[path].strip("\n").split("\n"))
            yield name, "\n".join(lines).strip("\n")


def _names_of(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
    for index, message in enumerate(file.message_type):
        yield from _names_in_message(message, (_MESSAGES, index), file.package)
    for index, enum in enumerate(file.enum_type):
        yield from _names_in_enum(enum, (_ENUMS, index), file.package)
    for index, service in enumerate(file.service):
        yield (_SERVICES, index), f"{file.package}.{service.name}"
        for number, method in enumerate(service.method):
            yield (_SERVICES, index, _METHODS, number), f"{file.package}.{service.name}.{method.name}"


def _names_in_message(
    message: descriptor_pb2.DescriptorProto, path: tuple[int, ...], scope: str
) -> Iterator[tuple[tuple[int, ...], str]]:
    name = f"{scope}.{message.name}"
    yield path, name
    for index, field in enumerate(message.field):
        yield (*path, _FIELDS, index), f"{name}.{field.name}"
    for index, nested in enumerate(message.nested_type):
        yield from _names_in_message(nested, (*path, _NESTED_MESSAGES, index), name)
    for index, enum in enumerate(message.enum_type):
        yield from _names_in_enum(enum, (*path, _NESTED_ENUMS, index), name)


def _names_in_enum(
    enum: descriptor_pb2.EnumDescriptorProto, path: tuple[int, ...], scope: str
) -> Iterator[tuple[tuple[int, ...], str]]:
    yield path, f"{scope}.{enum.name}"
    for index, value in enumerate(enum.value):
        # Values are named beside their enum, not in it; here the enum's name keeps them apart.
        yield (*path, _VALUES, index), f"{scope}.{enum.name}.{value.name}"
