"""An RPC that is added is a command: proven with a service that only this test knows."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.message import Message
from grpc_tools import protoc  # type: ignore[import-untyped] # has no stubs

from controlplane.cli.descriptors import Catalogue
from controlplane.cli.entry import run
from controlplane.cli.local import InstalledCommands
from tests.fakes.admin_server import TOKEN, AdminServer

HERE = Path(__file__).parent
PROTO = HERE.parents[2] / "proto"


@pytest.fixture(scope="module")
def novel(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    target = tmp_path_factory.mktemp("novel") / "set.binpb"
    includes = (HERE, PROTO, Path(protoc.__file__).parent / "_proto")
    arguments = [f"-I{path}" for path in includes] + [f"--descriptor_set_out={target}", "--include_source_info"]
    known = sorted(str(path.relative_to(PROTO)) for path in PROTO.glob("neuronetz/admin/v1/*.proto"))
    assert protoc.main(["protoc", *arguments, "--include_imports", "novel.proto", *known]) == 0
    return Catalogue(descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes()))


Call = Callable[..., tuple[int, str, str]]


class Experiments(grpc.GenericRpcHandler):
    """Answers the novel service with messages of its own descriptors."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._by_method = {rpc.method: rpc for rpc in catalogue.rpcs if "Experiment" in rpc.method}
        self._catalogue = catalogue
        self.requests: list[Message] = []

    def service(self, handler_call_details):
        rpc = self._by_method.get(handler_call_details.method)
        if rpc is None:
            return None
        codecs = {
            "request_deserializer": self._catalogue.message_class(rpc.request).FromString,
            "response_serializer": lambda message: message.SerializeToString(),
        }
        if rpc.server_streaming:
            return grpc.unary_stream_rpc_method_handler(self._watch, **codecs)
        if rpc.client_streaming:
            return grpc.stream_unary_rpc_method_handler(lambda many, _: self._progress(next(many).name, 100), **codecs)
        if rpc.name == "run-experiment":
            return grpc.unary_unary_rpc_method_handler(self._run, **codecs)
        return grpc.unary_unary_rpc_method_handler(lambda one, _: self._progress(one.name, 1), **codecs)

    def _run(self, request: Any, _context: grpc.ServicerContext) -> Any:
        self.requests.append(request)
        answer = self._answer("run-experiment")
        answer.echo.CopyFrom(request)
        answer.secret = "s3cret"
        return answer

    def _watch(self, request: Any, context: grpc.ServicerContext) -> Iterator[Message]:
        for percent in (10, 60):
            yield self._progress(request.name, percent)
        if request.name == "broken":
            context.abort(grpc.StatusCode.UNAVAILABLE, "gone")

    def _progress(self, name: str, percent: int) -> Any:
        answer = self._answer("watch-experiments")
        answer.name, answer.percent = name, percent
        answer.at.seconds, answer.at.nanos = percent, 500_000_000
        return answer

    def _answer(self, name: str) -> Any:
        rpc = self._catalogue.find(name)
        assert rpc is not None
        return self._catalogue.message(rpc.response)


@pytest.fixture
def experiments(novel: Catalogue) -> Experiments:
    return Experiments(novel)


@pytest.fixture
def call(novel: Catalogue, experiments: Experiments, capsys: pytest.CaptureFixture[str]) -> Iterator[Call]:
    with AdminServer().running(further=(experiments,)) as server:
        environ = {"GATEWAY_ADMIN_ADDRESS": server.address, "GATEWAY_ADMIN_TOKEN": TOKEN}

        def typed(*arguments):
            code = run(arguments, environ, novel, InstalledCommands())
            captured = capsys.readouterr()
            return int(code), captured.out, captured.err

        yield typed


RUN = [
    (("first",), {"name": "first"}),
    (("--times", "4294967295", "--strength", "0.5"), {"times": 4294967295, "strength": 0.5}),
    (("--colour", "dark-red"), {"colour": "COLOUR_DARK_RED"}),
    (
        ("--colours", "BLUE,dark-red", "--colours", "blue"),
        {"colours": ["COLOUR_BLUE", "COLOUR_DARK_RED", "COLOUR_BLUE"]},
    ),
    (("--seeds", "1, -2", "--seeds", "3"), {"seeds": [1, -2, 3]}),
    (("--rows.start", "1", "--columns.end", "0"), {"rows": {"start": 1}, "columns": {"start": 0, "end": 0}}),
    (("--labels", "a=b=c", "--labels", "d="), {"labels": {"a": "b=c", "d": ""}}),
    (("--ranges", '{"x": {"start": 2}}', "--ranges", '{"y": {}}'), {"ranges": {"x": {"start": 2}, "y": {"start": 0}}}),
    (
        ("--trees", '{"label": "a", "children": [{"label": "b"}]}', "--trees", "{}"),
        {"trees": [{"label": "a", "children": [{"label": "b", "children": []}]}, {"label": "", "children": []}]},
    ),
    (
        ("--tree", '{"sibling": {"label": "s"}}'),
        {"tree": {"label": "", "children": [], "sibling": {"label": "s", "children": []}}},
    ),
    (("--mask", "a,b.c"), {"mask": "a,b.c"}),
    (("--salt", "c2FsdA=="), {"salt": "c2FsdA=="}),
    (("--pauses", "1s", "--pauses", "2s"), {"pauses": ["1s", "2s"]}),
    (("--everywhere",), {"everywhere": {}}),
    (("--rooms.start", "1", "--rooms.end", "2"), {"rooms": {"start": 1, "end": 2}}),
    (("--rpm", "7"), {"limits": {"rpm": 7}}),
    (("--no-bold",), {"bold": False}),
    (("--mood", "good"), {"inner": {"mood": "MOOD_GOOD"}}),
    (("--dry-run",), {"validate_only": True}),
]


@pytest.mark.parametrize(("typed", "expected"), RUN, ids=[" ".join(typed) for typed, _ in RUN])
def test_every_kind_of_field_can_be_typed(call, typed, expected):
    empty = json.loads(call("run-experiment", "-o", "json")[1])["echo"]
    code, out, err = call("run-experiment", *typed, "-o", "json")

    assert code == 0, err
    assert json.loads(out)["echo"] == empty | expected


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        (("--colour", "green"), "green"),
        (("--times", "-1"), "between"),
        (("--room", "a", "--everywhere"), "exclude each other"),
        (("--room", "a", "--rooms.start", "1"), "exclude each other"),
        (("--tree", '{"leaf": 1}'), "does not fit tree"),
        (("--trees", "[1]"), "does not fit trees"),
        (("--ranges", "1"), "JSON objects"),
        (("--labels", "a"), "NAME=VALUE"),
        (("--salt", "?"), "base64"),
        (("--start", "1"), "--start"),
    ],
)
def test_what_fits_no_field_is_wrong_usage(call, experiments, typed, reason):
    code, _, err = call("run-experiment", *typed)

    assert code == 2
    assert reason in err
    assert experiments.requests == []


def test_comments_and_annotations_are_its_help(call):
    _, page, _ = call("--help")
    _, command, _ = call("try", "--help")

    assert "Experiment commands" in page
    assert "run-experiment, try" in page
    assert "Runs an experiment." in page
    assert "Twice if need be." in command
    assert "[NAME]" in command
    assert "[dark-red|blue]" in command
    assert "--rows.start N" in command
    assert "Where it begins." in command


def test_names_that_two_services_share_carry_the_service(novel):
    names = [rpc.name for rpc in novel.rpcs]

    assert {"experiment-describe", "laboratory-describe"} <= set(names)
    assert "describe" not in names
    assert len(names) == len(set(names))


def test_secret_is_shown_with_its_comment(call):
    _, out, err = call("run-experiment", "first", "--colour", "blue")

    assert out.splitlines()[0].split() == ["name", "first"]
    assert "blue (As the sky)" in out
    assert err == "secret: Known only now.\n"


def test_stream_is_shown_as_it_comes(call):
    _, as_json, _ = call("watch-experiments", "--name", "x", "-o", "json")
    _, as_text, _ = call("watch-experiments", "--name", "x")
    _, as_yaml, _ = call("watch-experiments", "--name", "x", "-o", "yaml")

    assert [json.loads(line)["percent"] for line in as_json.splitlines()] == [10, 60]
    assert json.loads(as_json.splitlines()[1])["at"] == "1970-01-01T00:01:00.500Z"
    assert as_text.splitlines()[1] == "name=x  percent=60  at=1970-01-01T00:01:00Z"
    assert as_yaml.count("---\n") == 2


def test_stream_that_breaks_keeps_what_came(call):
    code, out, err = call("watch-experiments", "--name", "broken", "-o", "json")

    assert code == 6
    assert len(out.splitlines()) == 2
    assert json.loads(err)["error"]["code"] == "UNAVAILABLE"


def test_client_stream_takes_one_request(call):
    assert json.loads(call("collect-experiments", "--name", "x", "-o", "json")[1])["percent"] == 100
