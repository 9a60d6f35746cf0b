"""A reply as it will be put on the wire: what is sent, how it is cut up, how slowly, and how it ends.

The engine makes an honest `Performance`; faults are functions from one Performance to another; `connection` plays it.
"""

import enum
import http
from collections.abc import Iterator
from dataclasses import dataclass, replace
from email.utils import formatdate
from itertools import chain, repeat

JSON = "application/json; charset=utf-8"
NDJSON = "application/x-ndjson"


class Framing(enum.Enum):
    """How the length of the body is told."""

    CHUNKED = "chunked"
    LENGTH = "content-length"
    BARE = "bare"
    """Nothing is added: the records are the bytes of the connection."""


class Ending(enum.Enum):
    """What happens after the last record."""

    COMPLETE = "complete"
    """The body is ended properly and the connection lives on."""
    CLOSE = "close"
    """The body is ended properly and the connection is closed."""
    CUT = "cut"
    """The connection is closed (FIN) without ending the body."""
    RESET = "reset"
    """The connection is reset (RST)."""
    HANG = "hang"
    """Nothing more is sent until the peer goes away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Performance:
    """One reply; `declared_length_bytes` is the Content-Length when it is not that of the records."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    records: tuple[bytes, ...] = ()
    framing: Framing = Framing.LENGTH
    ending: Ending = Ending.COMPLETE
    sends_head: bool = True
    head_alone: bool = False
    head_only: bool = False
    endless: bool = False
    declared_length_bytes: int | None = None
    before_head_ms: float = 0
    record_delay_ms: float = 0
    slice_bytes: int = 0
    slice_delay_ms: float = 0

    @property
    def streams(self) -> bool:
        """Whether this is an NDJSON stream with one record per chunk."""
        return self.framing is Framing.CHUNKED

    def body(self) -> Iterator[bytes]:
        """The records to send; an endless reply repeats all but the last, which says `done`."""
        if self.head_only:
            return iter(())
        if self.endless:
            return chain.from_iterable(repeat(self.records[:-1] or self.records))
        return iter(self.records)

    def head(self) -> bytes:
        """The status line and the headers, or nothing when no head is sent."""
        if not self.sends_head or self.framing is Framing.BARE:
            return b""
        lines = [f"HTTP/1.1 {self.status} {_reason(self.status)}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        lines.append(f"Date: {formatdate(usegmt=True)}")
        if self.framing is Framing.CHUNKED:
            lines.append("Transfer-Encoding: chunked")
        else:
            length = self.declared_length_bytes
            lines.append(f"Content-Length: {sum(map(len, self.records)) if length is None else length}")
        if self.ending is Ending.CLOSE:
            lines.append("Connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def truncated(self, records: tuple[bytes, ...], ending: Ending) -> "Performance":
        """The same head with fewer records after it; a Content-Length still promises the whole body."""
        whole = sum(map(len, self.records)) if self.declared_length_bytes is None else self.declared_length_bytes
        return replace(self, records=records, ending=ending, endless=False, declared_length_bytes=whole)

    def with_records(self, records: tuple[bytes, ...]) -> "Performance":
        """Other records, with the Content-Length that they have."""
        return replace(self, records=records, declared_length_bytes=None)

    def with_header(self, name: str, value: str | None) -> "Performance":
        """One header set, or removed with None."""
        kept = tuple(pair for pair in self.headers if pair[0].lower() != name.lower())
        return replace(self, headers=kept if value is None else (*kept, (name, value)))


def whole(body: bytes, *, status: int = 200, content_type: str = JSON) -> Performance:
    """A reply in one piece."""
    return Performance(status=status, headers=(("Content-Type", content_type),), records=(body,))


def stream(records: tuple[bytes, ...], *, record_delay_ms: float = 0) -> Performance:
    """An NDJSON stream."""
    return Performance(
        headers=(("Content-Type", NDJSON),),
        records=records,
        framing=Framing.CHUNKED,
        record_delay_ms=record_delay_ms,
    )


def _reason(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "status code"
