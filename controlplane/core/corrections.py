"""Corrections of what was used: their rules, and the usage event that each of them is. Pure rules."""

from __future__ import annotations

import datetime as dt
import re

import msgspec

from controlplane.core.limits import MAX_LIMIT
from controlplane.core.reasons import MAX_REASON_LENGTH
from controlplane.core.usage_query import Periods, read_day
from controlplane.errors import InvalidRequestError
from shared.keyspace import KeyId, LeaseId, TenantId
from shared.records import UsageEvent

# A correction lies in the partition of the day that it corrects; queries look back this far for those made later.
CORRECTABLE_DAYS = 62
MAX_OPERATOR_LENGTH = 100

_ID = re.compile(r"[0-9A-Za-z_-]{8,64}", re.ASCII)


class Correction(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens added to what was used on a day (negative: given back), of a key and its tenant or the tenant alone."""

    id: str
    tenant_id: TenantId
    key_id: KeyId | None
    tokens: int
    day: dt.date
    reason: str
    operator: str

    @property
    def event_id(self) -> LeaseId:
        """Its id in the ledger; it is also that of its tombstone, which is kept where those of leases are."""
        return LeaseId(f"adjust:{self.id}")

    @property
    def periods(self) -> Periods:
        """The periods that it corrects."""
        return Periods(day=self.day)

    @property
    def fingerprint(self) -> str:
        """Equal for repetitions of the same correction only."""
        return f"{self.tokens}:{self.day:%Y%m%d}:{self.key_id or ''}:{self.tenant_id}"

    def event(self, at: dt.datetime) -> UsageEvent:
        """Its usage event; its tokens are those of a prompt, because nobody knows better."""
        return UsageEvent(
            event_id=self.event_id,
            request_id=self.id,
            tenant_id=self.tenant_id,
            key_id=self.key_id or KeyId(""),
            day=f"{self.day:%Y%m%d}",
            created_at_ms=round(at.timestamp() * 1000),
            dialect="",
            endpoint="",
            outcome="correction",
            status=0,
            prompt_tokens=self.tokens,
            provenance="estimated",
            reason=self.reason,
            operator=self.operator[:MAX_OPERATOR_LENGTH],
        )


def correction_faults(*, tokens: int, reason: str, correction_id: str) -> list[str]:
    """One sentence for every field that breaks its rule; an empty id is none."""
    faults = []
    if tokens == 0 or abs(tokens) > MAX_LIMIT:
        faults.append(f"tokens must be from -{MAX_LIMIT} to {MAX_LIMIT} and not 0")
    if not 1 <= len(reason.strip()) <= MAX_REASON_LENGTH or not reason.isprintable():
        faults.append(f"reason must have 1 to {MAX_REASON_LENGTH} printable characters")
    if correction_id and _ID.fullmatch(correction_id) is None:
        faults.append("correction_id must have 8 to 64 letters, digits, hyphens and underscores")
    return faults


def corrected_day(period: str, *, today: dt.date) -> dt.date:
    """The day to correct, today for an empty text. Raises ``InvalidRequestError``."""
    if not period:
        return today
    try:
        day = read_day(period)
    except ValueError:
        raise InvalidRequestError("period must be a day such as 20261121") from None
    if not today - dt.timedelta(days=CORRECTABLE_DAYS) <= day <= today:
        raise InvalidRequestError(f"period must be today ({today:%Y%m%d}) or one of the {CORRECTABLE_DAYS} days before")
    return day
