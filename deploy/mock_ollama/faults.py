"""The faults that change how a reply is delivered: when it is cut, delayed, or never comes at all.

Every fault is a frozen value with a `kind` and `apply`, a pure function from the honest reply to the faulty one. On a
reply that does not stream, the one JSON document counts as record 1. Faults of the content are in `bad_content`; the
table of all is `scripts.Fault`.
"""

from dataclasses import replace
from typing import Annotated, Literal

import msgspec

from deploy.mock_ollama.performance import Ending, Framing, Performance

Count = Annotated[int, msgspec.Meta(ge=0)]
Milliseconds = Annotated[float, msgspec.Meta(ge=0)]
After = Literal["close", "reset", "hang"]
_ENDINGS = {"close": Ending.CUT, "reset": Ending.RESET, "hang": Ending.HANG}


class Shape(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", forbid_unknown_fields=True):
    """What all faults are: values with a `kind`."""

    def apply(self, reply: Performance) -> Performance:
        """Return the faulty reply."""
        return reply


class Refuse(Shape, frozen=True, kw_only=True, tag="refuse"):
    """Connections are refused.

    Without `duration_ms` the next ones are reset at accept (`times` counts connections, `match` does not apply); with
    it the port is closed for so long, at once, and idle connections are closed too.
    """

    duration_ms: Milliseconds = 0


class ResetBeforeHeaders(Shape, frozen=True, kw_only=True, tag="reset_before_headers"):
    """The request is read, then the connection is reset."""

    def apply(self, reply: Performance) -> Performance:
        """See Shape."""
        return replace(reply, sends_head=False, head_only=True, ending=Ending.RESET)


class CloseBeforeHeaders(Shape, frozen=True, kw_only=True, tag="close_before_headers"):
    """The request is read, then the connection is closed cleanly."""

    def apply(self, reply: Performance) -> Performance:
        """See Shape."""
        return replace(reply, sends_head=False, head_only=True, ending=Ending.CUT)


class ResetAfterHeaders(Shape, frozen=True, kw_only=True, tag="reset_after_headers"):
    """Status and headers are sent, then the connection is reset."""

    def apply(self, reply: Performance) -> Performance:
        """See Shape."""
        return replace(reply.truncated((), Ending.RESET), head_alone=True)


class HalfRecord(Shape, frozen=True, kw_only=True, tag="half_record"):
    """After `records` whole records half of the next is sent, then the connection ends as `then` says."""

    records: Count = 0
    then: After = "close"

    def apply(self, reply: Performance) -> Performance:
        """See Shape."""
        whole, rest = reply.records[: self.records], reply.records[self.records : self.records + 1]
        return reply.truncated((*whole, *(record[: len(record) // 2] for record in rest)), _ENDINGS[self.then])


class ResetAfterRecords(Shape, frozen=True, kw_only=True, tag="reset_after_records"):
    """`records` records are sent, then the connection is reset."""

    records: Count = 1

    def apply(self, reply: Performance) -> Performance:
        """See Shape."""
        return replace(reply.truncated(reply.records[: self.records], Ending.RESET), head_alone=self.records == 0)


class CloseAfterRecords(Shape, frozen=True, kw_only=True, tag="close_after_records"):
    """`records` records are sent and the body is ended properly, without `done`."""

    records: Count = 1

    def apply(self, reply: Performance) -> Performance:
        """See Shape."""
        return replace(reply.with_records(reply.records[: self.records]), ending=Ending.CLOSE)


class CutAfterRecords(Shape, frozen=True, kw_only=True, tag="cut_after_records"):
    """`records` records are sent, then the connection is closed without the terminating chunk."""

    records: Count = 1

    def apply(self, reply: Performance) -> Performance:
        """See Shape."""
        return replace(reply.truncated(reply.records[: self.records], Ending.CUT), head_alone=self.records == 0)


class Slow(Shape, frozen=True, kw_only=True, tag="slow"):
    """Delays before the headers, before each record, and between slices of `slice_bytes`."""

    before_headers_ms: Milliseconds = 0
    per_record_ms: Milliseconds | None = None
    slice_bytes: Count = 0
    slice_ms: Milliseconds = 0

    def apply(self, reply: Performance) -> Performance:
        """See Shape."""
        return replace(
            reply,
            before_head_ms=reply.before_head_ms + self.before_headers_ms,
            record_delay_ms=reply.record_delay_ms if self.per_record_ms is None else self.per_record_ms,
            slice_bytes=self.slice_bytes,
            slice_delay_ms=self.slice_ms,
        )


class Hang(Shape, frozen=True, kw_only=True, tag="hang"):
    """Nothing more comes: `before_headers`, `after_headers`, or `after_records` (then `records` of them were sent)."""

    where: Literal["before_headers", "after_headers", "after_records"] = "before_headers"
    records: Count = 1

    def apply(self, reply: Performance) -> Performance:
        """See Shape."""
        if self.where == "before_headers":
            return replace(reply, sends_head=False, head_only=True, ending=Ending.HANG)
        count = self.records if self.where == "after_records" else 0
        return replace(reply.truncated(reply.records[:count], Ending.HANG), head_alone=count == 0)


class Endless(Shape, frozen=True, kw_only=True, tag="endless"):
    """The content records are repeated for ever, `per_record_ms` apart; `done` never comes."""

    per_record_ms: Milliseconds = 1

    def apply(self, reply: Performance) -> Performance:
        """See Shape."""
        return replace(reply, endless=True, record_delay_ms=self.per_record_ms)


class Raw(Shape, frozen=True, kw_only=True, tag="raw"):
    """Exactly these bytes (`slices`, each one write, in Latin-1) `pause_ms` apart, head included; then the end."""

    slices: tuple[str, ...]
    pause_ms: Milliseconds = 0
    then: Literal["close", "reset", "hang", "keep"] = "close"

    def apply(self, reply: Performance) -> Performance:
        """See Shape."""
        return replace(
            reply,
            records=tuple(part.encode("latin-1", "replace") for part in self.slices),
            framing=Framing.BARE,
            ending=_ENDINGS.get(self.then, Ending.COMPLETE),
            record_delay_ms=self.pause_ms,
        )
