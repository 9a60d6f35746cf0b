"""The faults that change what a reply says: wrong counts, error lines, bad JSON, wrong types, hostile model lists."""

import base64
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Final, Literal

import msgspec

from deploy.mock_ollama.catalogue import Model, tags_entry
from deploy.mock_ollama.faults import Count, Milliseconds, Shape
from deploy.mock_ollama.frames import encode
from deploy.mock_ollama.performance import JSON, Ending, Performance, whole

_BUSY: Final = "server busy, please try again.  maximum pending requests exceeded"


class ErrorLineAfterRecords(Shape, frozen=True, kw_only=True, tag="error_line_after_records"):
    """After `records` records comes `{"error": text}` and the stream is over, with status 200."""

    records: Count = 1
    text: str = "an error was encountered while running the model: unexpected EOF"

    def apply(self, reply: Performance) -> Performance:
        """See Shape."""
        return reply.with_records((*reply.records[: self.records], encode({"error": self.text}) + b"\n"))


class NoDone(Shape, frozen=True, kw_only=True, tag="no_done"):
    """The reply ends properly without `done: true` and without any usage."""

    def apply(self, reply: Performance) -> Performance:
        """See Shape."""
        return reply.with_records(reply.records[:-1]) if reply.streams else _edited(reply, -1, _without_usage)


class RepeatGuard(Shape, frozen=True, kw_only=True, tag="repeat_guard"):
    """Ollama's guard against repetition: 31 equal tokens, then the end without `done` (llm/llama_server.go)."""

    def apply(self, reply: Performance) -> Performance:
        """See Shape."""
        if not reply.streams:
            return _edited(reply, -1, _without_usage)
        return reply.with_records(reply.records[:1] * 31)


class Counts(Shape, frozen=True, kw_only=True, tag="counts"):
    """Fields of the last record are set to any JSON value (`set`) or left out (`remove`)."""

    set: dict[str, Any] = msgspec.field(default_factory=dict)
    remove: tuple[str, ...] = ()

    def apply(self, reply: Performance) -> Performance:
        """See Shape."""
        return _edited(reply, -1, lambda record: {k: v for k, v in (record | self.set).items() if k not in self.remove})


class Gzip(Shape, frozen=True, kw_only=True, tag="gzip"):
    """The body is compressed, flushed per record, and says so; with `hidden` it does not say so."""

    hidden: bool = False

    def apply(self, reply: Performance) -> Performance:
        """See Shape."""
        packer = zlib.compressobj(wbits=31)
        records = [packer.compress(record) + packer.flush(zlib.Z_SYNC_FLUSH) for record in reply.records]
        packed = reply.with_records((*records, packer.flush()))
        return packed if self.hidden else packed.with_header("Content-Encoding", "gzip")


class Status(Shape, frozen=True, kw_only=True, tag="status"):
    """Any status with any headers and body."""

    status: Annotated[int, msgspec.Meta(ge=200, le=999)] = 500
    body: str = '{"error":"something went wrong"}'
    content_type: str = JSON
    headers: dict[str, str] = msgspec.field(default_factory=dict)

    def apply(self, reply: Performance) -> Performance:  # noqa: ARG002 - the interface
        """See Shape."""
        answer = whole(self.body.encode(), status=self.status, content_type=self.content_type)
        for name, value in self.headers.items():
            answer = answer.with_header(name, value)
        return answer


class Redirect(Shape, frozen=True, kw_only=True, tag="redirect"):
    """A redirect to `location`."""

    location: str
    status: Literal[301, 302, 303, 307, 308] = 307

    def apply(self, reply: Performance) -> Performance:  # noqa: ARG002 - the interface
        """See Shape."""
        return replace(Performance(status=self.status), headers=(("Location", self.location),))


class Busy(Shape, frozen=True, kw_only=True, tag="busy"):
    """Ollama's 503 when its queue is full (server/sched.go ErrMaxQueue)."""

    def apply(self, reply: Performance) -> Performance:  # noqa: ARG002 - the interface
        """See Shape."""
        return whole(encode({"error": _BUSY}), status=503)


class Empty200(Shape, frozen=True, kw_only=True, tag="empty_200"):
    """Status 200 and no body at all."""

    def apply(self, reply: Performance) -> Performance:
        """See Shape."""
        return reply.with_records(())


class InvalidJSON(Shape, frozen=True, kw_only=True, tag="invalid_json"):
    """Record `record` (from 0) is replaced by `text`."""

    record: Count = 0
    text: str = '{"model": oops}'

    def apply(self, reply: Performance) -> Performance:
        """See Shape."""
        return _replaced(reply, self.record, self.text.encode() + b"\n")


class HugeRecord(Shape, frozen=True, kw_only=True, tag="huge_record"):
    """Record `record` (from 0) carries a content of `bytes` bytes."""

    bytes: Count = 2 << 20
    record: Count = 0

    def apply(self, reply: Performance) -> Performance:
        """See Shape."""
        return _edited(reply, self.record, lambda record: _with_content(record, "x" * self.bytes))


class BytesAfterDone(Shape, frozen=True, kw_only=True, tag="bytes_after_done"):
    """After the last record come more bytes."""

    text: str = '{"model":"x","message":{"role":"assistant","content":"late"},"done":false}\n'

    def apply(self, reply: Performance) -> Performance:
        """See Shape."""
        return reply.with_records((*reply.records, self.text.encode()))


class DuplicateDone(Shape, frozen=True, kw_only=True, tag="duplicate_done"):
    """The last record comes `copies` more times."""

    copies: Count = 1

    def apply(self, reply: Performance) -> Performance:
        """See Shape."""
        return reply.with_records(reply.records + reply.records[-1:] * self.copies)


class WrongContentType(Shape, frozen=True, kw_only=True, tag="wrong_content_type"):
    """Another Content-Type, or none with null."""

    content_type: str | None = "text/html"

    def apply(self, reply: Performance) -> Performance:
        """See Shape."""
        return reply.with_header("Content-Type", self.content_type)


class ExtraFields(Shape, frozen=True, kw_only=True, tag="extra_fields"):
    """Every record carries fields that a gateway must not pass on."""

    fields: dict[str, Any] = msgspec.field(default_factory=lambda: dict(_EXTRA_FIELDS))

    def apply(self, reply: Performance) -> Performance:
        """See Shape."""
        faulty = reply
        for index in range(len(reply.records)):
            faulty = _edited(faulty, index, lambda record: record | self.fields)
        return faulty


class HostileTags(Shape, frozen=True, kw_only=True, tag="hostile_tags"):
    """A list of models made to hurt whoever reads it: `size` is its models, its depth or its bytes."""

    shape: Literal["many", "giant", "deep", "not_json", "weird_names", "duplicates", "wrong_types", "remote"] = "many"
    size: Count = 100_000

    def apply(self, reply: Performance) -> Performance:
        """See Shape."""
        return reply.with_records((self._body(),))

    def _body(self) -> bytes:
        plain = Model(name="llama3.2:latest")
        match self.shape:
            case "giant":
                return encode({"models": [tags_entry(plain)], "padding": "x" * self.size})
            case "deep":
                return b'{"models":' + b"[" * self.size + b"]" * self.size + b"}"
            case "not_json":
                return b"<html>" + b"no json " * (self.size // 8)
            case "many":
                entry = msgspec.json.encode(tags_entry(plain))
                names = (b"model-%d:latest" % index for index in range(self.size))
                return b'{"models":[' + b",".join(entry.replace(b"llama3.2:latest", name) for name in names) + b"]}"
            case "duplicates":
                return encode({"models": [tags_entry(plain), tags_entry(Model(name="LLAMA3.2")), tags_entry(plain)]})
            case "wrong_types":
                return encode({"models": [{"name": 7, "model": None}, None, "llama3.2", {"details": []}, {}]})
            case "remote":
                stub = Model(name="big:120b-cloud", remote_model="big:120b", remote_host="https://ollama.com:443")
                return encode({"models": [tags_entry(plain), tags_entry(stub)]})
            case _:
                return encode({"models": [tags_entry(Model(name=name)) for name in _WEIRD_NAMES]})


class AnyBytes(Shape, frozen=True, kw_only=True, tag="any_bytes"):
    """The body is these bytes (base64) in writes of their own, with an honest head before them."""

    bodies: tuple[str, ...]
    pause_ms: Milliseconds = 0

    def apply(self, reply: Performance) -> Performance:
        """See Shape."""
        records = tuple(base64.b64decode(body) for body in self.bodies)
        return replace(reply.with_records(records), record_delay_ms=self.pause_ms, ending=Ending.CLOSE)


_EXTRA_FIELDS: Final[dict[str, Any]] = {
    "remote_model": "gpt-oss:120b",
    "remote_host": "https://ollama.com:443",
    "context": [1, 2, 3],
    "_debug_info": {"rendered_template": "OPERATOR TEMPLATE"},
    "unknown_field": {"nested": True},
}
_WEIRD_NAMES: Final = (
    "llama3.2:latest", "", " ", "../../etc/passwd", "a\r\nX-Injected: 1", "\x1b[31mred", "\u202eevil", "naïve:latest",
    "x" * 5000, "model\x00null", "a:b:c:d", "//", "<script>alert(1)</script>", "{{ .System }}", "x:cloud", "x:1b-cloud",
)  # fmt: skip


def _edited(reply: Performance, index: int, edit: Callable[[dict[str, Any]], dict[str, Any]]) -> Performance:
    if not -len(reply.records) <= index < len(reply.records):
        return reply
    record = reply.records[index]
    end = b"\n" if record.endswith(b"\n") else b""
    return _replaced(reply, index, encode(edit(msgspec.json.decode(record))) + end)


def _replaced(reply: Performance, index: int, record: bytes) -> Performance:
    records = list(reply.records)
    if -len(records) <= index < len(records):
        records[index] = record
    return reply.with_records(tuple(records))


def _without_usage(record: dict[str, Any]) -> dict[str, Any]:
    usage = {"done_reason", "context"}
    kept = {k: v for k, v in record.items() if k not in usage and not k.endswith(("_count", "_duration"))}
    return kept | {"done": False}


def _with_content(record: dict[str, Any], content: str) -> dict[str, Any]:
    if "message" in record:
        return record | {"message": record["message"] | {"content": content}}
    return record | {"response": content}
