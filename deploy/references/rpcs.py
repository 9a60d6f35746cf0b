"""The gRPC services: every RPC with its command, its roles, what it takes, and every message and enum.

Sources are the compiled descriptors with their comments, and ``controlplane.rpc.authz``.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from controlplane.cli import helptext
from controlplane.cli.descriptors import ADMIN_PACKAGE, RPC, Catalogue
from controlplane.core.roles import Role
from controlplane.rpc.authz import RULES
from deploy.references.sections import code, one_line, table

STATE_PACKAGE = "neuronetz.state.v1"
_SCALARS = {
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_DOUBLE: "double",
}


def admin() -> str:
    """The admin API: a part for each service."""
    return "\n\n".join(_services(ADMIN_PACKAGE, commands=True))


def state() -> str:
    """What data planes call."""
    return "\n\n".join(_services(STATE_PACKAGE, commands=False))


def messages() -> str:
    """Messages and enums of the admin API that are no requests."""
    catalogue = _catalogue(ADMIN_PACKAGE)
    messages: dict[str, Descriptor] = {}
    enums: dict[str, EnumDescriptor] = {}
    for rpc in catalogue.rpcs:
        for top in (rpc.request, rpc.response):
            _reach(top, messages, enums)
    requests = {rpc.request.full_name for rpc in catalogue.rpcs}
    parts = [
        f"### {descriptor.name}\n\n" + _described(catalogue, name) + _fields(catalogue, descriptor)
        for name, descriptor in sorted(messages.items())
        if name not in requests and descriptor.fields
    ]
    parts += [f"### {enum.name}\n\n" + _values(catalogue, enum) for _, enum in sorted(enums.items())]
    return "\n\n".join(parts)


def names() -> set[str]:
    """Every RPC of both packages, as ``KeyService/CreateKey``."""
    return {
        "/".join(rpc.method.rpartition(".")[2].split("/"))
        for package in (ADMIN_PACKAGE, STATE_PACKAGE)
        for rpc in _catalogue(package).rpcs
    }


def _catalogue(package: str) -> Catalogue:
    data = resources.files("neuronetz").joinpath("descriptors.binpb").read_bytes()
    return Catalogue(descriptor_pb2.FileDescriptorSet.FromString(data), package)


def _services(package: str, *, commands: bool) -> Iterator[str]:
    catalogue = _catalogue(package)
    by_service: dict[str, list[RPC]] = {}
    for rpc in catalogue.rpcs:
        by_service.setdefault(rpc.request.file.package + "." + rpc.method.split("/")[1].rpartition(".")[2], []).append(
            rpc
        )
    for service, rpcs in by_service.items():
        short = service.rpartition(".")[2]
        head = ("RPC", *(("Command",) if commands else ()), "Roles", "Kind")
        rows = (
            (
                f"[`{rpc.method.rpartition('/')[2]}`](#{rpc.method.rpartition('/')[2].lower()})",
                *((", ".join(code(name) for name in (rpc.name, *rpc.aliases)),) if commands else ()),
                _roles(rpc),
                _kind(rpc),
            )
            for rpc in rpcs
        )
        comment = _prose(catalogue.comment(service))
        yield f"## {short}\n\n{comment}\n\n{table(head, rows)}"
        yield from (_rpc(catalogue, rpc) for rpc in rpcs)


def _rpc(catalogue: Catalogue, rpc: RPC) -> str:
    parts = [f"### {rpc.method.rpartition('/')[2]}", _prose(rpc.comment)]
    if rpc.request.fields:
        parts.append(_fields(catalogue, rpc.request))
    examples = helptext.examples(rpc.comment)
    if examples:
        parts.append("```console\n" + "\n".join(f"$ {line}" for line in examples) + "\n```")
    return "\n\n".join(part for part in parts if part)


def _prose(comment: str) -> str:
    """A comment without its examples, which are shown as code."""
    shown = set(helptext.examples(comment))
    blocks = [block for block in comment.split("\n\n") if not {line.strip() for line in block.splitlines()} <= shown]
    return "\n\n".join(one_line(block) for block in blocks if block.strip())


def _roles(rpc: RPC) -> str:
    rule = RULES[rpc.method]
    return ", ".join(role.value for role in Role if role in rule.roles)


def _kind(rpc: RPC) -> str:
    if rpc.is_destructive:
        return "**ends something**: asked about, or `--yes`"
    if rpc.server_streaming:
        return "stream"
    return "changes" if RULES[rpc.method].mutates else "reads"


def _described(catalogue: Catalogue, name: str) -> str:
    comment = _prose(catalogue.comment(name))
    return f"{comment}\n\n" if comment else ""


def _fields(catalogue: Catalogue, message: Descriptor) -> str:
    rows = ((code(field.name), _type(field), one_line(catalogue.comment(field.full_name))) for field in message.fields)
    return table(("Field", "Type", "Meaning"), rows)


def _values(catalogue: Catalogue, enum: EnumDescriptor) -> str:
    rows = (
        (code(value.name), one_line(catalogue.comment(f"{enum.full_name}.{value.name}")))
        for value in enum.values
        if value.number
    )
    return table(("Value", "Meaning"), rows)


def _type(field: FieldDescriptor) -> str:
    if field.message_type is not None:
        known = field.message_type.file.package == ADMIN_PACKAGE and field.message_type.fields
        name = field.message_type.name
        words = f"[{name}](#{name.lower()})" if known else name
    elif field.enum_type is not None:
        words = f"[{field.enum_type.name}](#{field.enum_type.name.lower()})"
    else:
        words = _SCALARS[field.type]
    return f"repeated {words}" if field.is_repeated else words


def _reach(message: Descriptor, messages: dict[str, Descriptor], enums: dict[str, EnumDescriptor]) -> None:
    if message.full_name in messages or message.file.package != ADMIN_PACKAGE:
        return
    messages[message.full_name] = message
    for field in message.fields:
        if field.message_type is not None:
            _reach(field.message_type, messages, enums)
        elif field.enum_type is not None:
            enums[field.enum_type.full_name] = field.enum_type
