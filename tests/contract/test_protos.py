"""The protos keep their promises: nothing that was released breaks, and buf finds nothing where it is installed."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet

BUF = os.environ.get("GATEWAY_BUF") or shutil.which("buf")


@pytest.fixture(scope="session")
def checker(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("proto_breaking", root / "proto" / "breaking.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def files(checker) -> FileDescriptorSet:
    found: FileDescriptorSet = checker.load(checker.CURRENT)
    return found


def named(files: FileDescriptorSet, name: str) -> FileDescriptorProto:
    return next(file for file in files.file if file.name == f"neuronetz/admin/v1/{name}.proto")


def test_nothing_that_was_released_is_broken(checker):
    assert checker.breaks(checker.load(checker.RELEASED), checker.load(checker.CURRENT)) == []


def drop_file(files: FileDescriptorSet) -> None:
    files.file.remove(named(files, "tenant"))


def rename_package(files: FileDescriptorSet) -> None:
    named(files, "tenant").package = "neuronetz.admin.v2"


def drop_message(files: FileDescriptorSet) -> None:
    del named(files, "tenant").message_type[0]


def drop_field(files: FileDescriptorSet) -> None:
    del named(files, "tenant").message_type[0].field[0]


def renumber_field(files: FileDescriptorSet) -> None:
    named(files, "tenant").message_type[0].field[0].number = 999


def rename_field(files: FileDescriptorSet) -> None:
    named(files, "tenant").message_type[0].field[0].name = "other"


def retype_field(files: FileDescriptorSet) -> None:
    named(files, "tenant").message_type[0].field[0].type = FieldDescriptorProto.TYPE_BYTES


def repeat_field(files: FileDescriptorSet) -> None:
    named(files, "tenant").message_type[0].field[0].label = FieldDescriptorProto.LABEL_REPEATED


def rename_in_json(files: FileDescriptorSet) -> None:
    named(files, "tenant").message_type[0].field[0].json_name = "other"


def make_unset(files: FileDescriptorSet) -> None:
    field = named(files, "limits").message_type[0].field[0]
    assert field.proto3_optional
    field.proto3_optional = False
    field.ClearField("oneof_index")


def drop_enum(files: FileDescriptorSet) -> None:
    del named(files, "key").enum_type[0]


def drop_value(files: FileDescriptorSet) -> None:
    del named(files, "key").enum_type[0].value[1]


def rename_value(files: FileDescriptorSet) -> None:
    named(files, "key").enum_type[0].value[1].name = "KEY_STATUS_OTHER"


def drop_service(files: FileDescriptorSet) -> None:
    del named(files, "key").service[0]


def drop_rpc(files: FileDescriptorSet) -> None:
    del named(files, "key").service[0].method[0]


def other_answer(files: FileDescriptorSet) -> None:
    named(files, "key").service[0].method[0].output_type = ".neuronetz.admin.v1.Key"


def stream(files: FileDescriptorSet) -> None:
    named(files, "key").service[0].method[0].server_streaming = True


def drop_option(files: FileDescriptorSet) -> None:
    del named(files, "annotations").extension[0]


BREAKS: dict[Callable[[FileDescriptorSet], None], str] = {
    drop_file: "file .* is gone",
    rename_package: "of package",
    drop_message: "message .* is gone",
    drop_field: "without its number and name being reserved",
    renumber_field: "without its number and name being reserved",
    rename_field: "is called other",
    retype_field: "another type",
    repeat_field: "repeated or no longer",
    rename_in_json: "in JSON",
    make_unset: "unset or no longer",
    drop_enum: "enum .* is gone",
    drop_value: "enum value .* is gone",
    rename_value: "KEY_STATUS_OTHER",
    drop_service: "service .* is gone",
    drop_rpc: "RPC .* is gone",
    other_answer: "another request or answer",
    stream: "streams or no longer",
    drop_option: "option .* is gone or another",
}


@pytest.mark.parametrize("change", BREAKS, ids=lambda change: change.__name__)
def test_a_breaking_change_is_found(checker, files, change):
    before = FileDescriptorSet()
    before.CopyFrom(files)
    change(files)
    found = checker.breaks(before, files)
    assert found
    assert re.search(BREAKS[change], found[0]), found


def test_what_is_added_or_left_behind_as_reserved_breaks_nobody(checker, files):
    before = FileDescriptorSet()
    before.CopyFrom(files)
    message = named(files, "tenant").message_type[0]
    gone = message.field[0]
    message.reserved_name.append(gone.name)
    message.reserved_range.add(start=gone.number, end=gone.number + 1)
    del message.field[0]
    message.field.add(name="further", number=900, type=FieldDescriptorProto.TYPE_STRING, json_name="further")
    named(files, "tenant").message_type.add(name="Further")
    assert checker.breaks(before, files) == []
    # And its number stays taken.
    after = FileDescriptorSet()
    after.CopyFrom(files)
    named(after, "tenant").message_type[0].field.add(name="again", number=gone.number, json_name="again")
    assert "has a reserved number" in checker.breaks(files, after)[0]


@pytest.mark.parametrize("file", ["tenant", "key", "backend", "model", "usage", "fleet", "operator"])
def test_names_follow_the_rules(files, file):
    for service in named(files, file).service:
        assert service.name.endswith("Service")
        for method in service.method:
            assert method.input_type.endswith(f".{method.name}Request")
            assert method.output_type.endswith(f".{method.name}Response")
    for enum in named(files, file).enum_type:
        prefix = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", enum.name).upper()
        assert enum.value[0].name == f"{prefix}_UNSPECIFIED"
        assert all(value.name.startswith(f"{prefix}_") for value in enum.value)


@pytest.mark.skipif(BUF is None, reason="buf is not installed; its rules are checked above in our own words")
@pytest.mark.parametrize("arguments", [("lint",), ("breaking", "--against", "released.binpb")], ids=lambda a: a[0])
def test_buf_finds_nothing(root, arguments):
    done = subprocess.run(
        [str(BUF), *arguments], cwd=root / "proto", capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
