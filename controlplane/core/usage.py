"""Usage events as the ledger takes them: read strictly, so that one bad event never stops the others. Pure rules."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Literal

import msgspec

from shared import records
from shared.keyspace import Shard
from shared.records import AnonymousFailures, RecordError, UsageEvent

MAX_ID_LENGTH = 200
MAX_PROMPT_LOG_DAYS = 3650
MAX_RAW_LENGTH = 16_384
_MAX_COUNT = 2**53
_MAX_INT32 = 2**31 - 1
_MIN_DAY = dt.date(2000, 1, 1)
_MAX_DAY = dt.date(2199, 12, 31)
_MAX_MOMENT_MS = 7_258_118_400_000  # the year 2200

_UNAUTHENTICATED, _TOO_MANY = 401, 429
# The reason of a failure that was not even examined, because its address block had failed too often.
THROTTLED = "throttled"

_DECODER = records.decoder(UsageEvent)
_ANONYMOUS = records.decoder(AnonymousFailures)


class UsageEventError(ValueError):
    """An event that the ledger cannot take; its text says why, without quoting it."""


class UsageRow(msgspec.Struct, frozen=True, kw_only=True):
    """A usage event whose values fit their columns."""

    event: UsageEvent
    day: dt.date
    created_at: dt.datetime
    tenant_id: uuid.UUID
    # None for a correction of the tenant alone.
    key_id: uuid.UUID | None

    @property
    def expires_on(self) -> dt.date | None:
        """The day on which its prompt is deleted; None when it has none to keep."""
        kept = self.event.prompt is not None or self.event.reply is not None
        days = self.event.prompt_log_days
        return self.day + dt.timedelta(days=days) if kept and days is not None else None


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of a usage stream, or of that of anonymous failures, that is no event."""

    shard: Shard | Literal["anonymous"]
    entry_id: str
    # The entry as text, cut to 16 384 characters.
    raw: str
    reason: str


def row_of(raw: bytes) -> UsageRow:
    """The row of an event; raises ``UsageEventError``."""
    try:
        event = records.decode(_DECODER, raw)
    except RecordError as fault:
        raise UsageEventError("not a usage event") from fault
    if not 1 <= len(event.event_id) <= MAX_ID_LENGTH or len(event.request_id) > MAX_ID_LENGTH:
        raise UsageEventError("an id of the wrong length")
    if "\0" in event.event_id:
        raise UsageEventError("an id with a zero byte")
    _check_numbers(event)
    return UsageRow(
        event=event,
        day=day_of(event.day),
        created_at=dt.datetime.fromtimestamp(event.created_at_ms / 1000, dt.UTC),
        tenant_id=_uuid(event.tenant_id),
        key_id=None if event.outcome == "correction" and not event.key_id else _uuid(event.key_id),
    )


class AnonymousRow(msgspec.Struct, frozen=True, kw_only=True):
    """Counted authentication failures of an address block, as a row of the audit log."""

    event_id: str
    day: dt.date
    created_at: dt.datetime
    block: str
    reason: str
    status: int
    occurrences: int


def anonymous_row_of(entry_id: str, raw: bytes) -> AnonymousRow:
    """The row of an entry of ``gateway:anonymous``; raises ``UsageEventError``."""
    try:
        failures = records.decode(_ANONYMOUS, raw)
    except RecordError as fault:
        raise UsageEventError("not a count of failures") from fault
    if not 0 <= failures.at_ms <= _MAX_MOMENT_MS or not 1 <= failures.occurrences <= _MAX_INT32:
        raise UsageEventError("a number out of range")
    at = dt.datetime.fromtimestamp(failures.at_ms / 1000, dt.UTC)
    if not _MIN_DAY <= at.date() <= _MAX_DAY:
        raise UsageEventError("a day out of range")
    block, reason = storable(failures.block[:MAX_ID_LENGTH]), storable(failures.reason[:MAX_ID_LENGTH])
    return AnonymousRow(
        event_id=f"anonymous:{entry_id}",
        day=at.date(),
        created_at=at,
        block=block,
        reason=reason,
        status=_TOO_MANY if reason == THROTTLED else _UNAUTHENTICATED,
        occurrences=failures.occurrences,
    )


def dead_letter(shard: Shard | Literal["anonymous"], entry_id: str, raw: bytes | None, reason: str) -> DeadLetter:
    """What is kept of an entry that is no event; ``raw`` is None for an entry without the field."""
    text = (raw or b"").decode("utf-8", "backslashreplace")[:MAX_RAW_LENGTH]
    return DeadLetter(shard=shard, entry_id=entry_id, raw=storable(text), reason=reason)


def storable(text: str) -> str:
    """The text without zero bytes, which JSON can say and Postgres cannot hold."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}") if "\0" in text else text


def _check_numbers(event: UsageEvent) -> None:
    # Written out: this runs for each of ten thousand events a second.
    if abs(event.prompt_tokens) > _MAX_COUNT or abs(event.completion_tokens) > _MAX_COUNT:
        raise UsageEventError("tokens out of range")
    if (event.prompt_tokens < 0 or event.completion_tokens < 0) and event.outcome != "correction":
        raise UsageEventError("negative tokens")
    if not 0 <= event.duration_ms <= _MAX_COUNT or not 0 <= (event.ttft_ms or 0) <= _MAX_COUNT:
        raise UsageEventError("a duration out of range")
    if not 0 <= event.status <= 999 or not 1 <= event.occurrences <= _MAX_INT32:
        raise UsageEventError("a number out of range")
    if not 0 <= event.created_at_ms <= _MAX_MOMENT_MS:
        raise UsageEventError("a moment out of range")
    if event.prompt_log_days is not None and not 1 <= event.prompt_log_days <= MAX_PROMPT_LOG_DAYS:
        raise UsageEventError("days out of range")


def day_of(text: str) -> dt.date:
    """The day in ``20261120``; raises ``UsageEventError``."""
    try:
        if len(text) != 8 or not text.isascii() or not text.isdigit():
            raise ValueError
        day = dt.date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        raise UsageEventError("not a day") from None
    if not _MIN_DAY <= day <= _MAX_DAY:
        raise UsageEventError("a day out of range")
    return day


def _uuid(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        raise UsageEventError("not an id") from None
