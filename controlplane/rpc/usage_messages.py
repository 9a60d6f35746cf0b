"""Between the messages of ``UsageService`` and values."""

from __future__ import annotations

import datetime as dt
import uuid

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp

from controlplane.core import corrections
from controlplane.core.keys import Key
from controlplane.core.usage_query import MAX_AUDIT_DAYS, Budget, By
from controlplane.errors import InvalidRequestError
from controlplane.rpc import convert
from controlplane.store.audit import AuditEntry, AuditFilter, Position
from controlplane.store.usage import UsageSum
from neuronetz.admin.v1 import usage_pb2 as pb
from shared import modelname
from shared.keyspace import KeyId, TenantId
from shared.records import Outcome, Provenance

MAX_MODEL_LENGTH = 300
MAX_REQUEST_ID_LENGTH = 200
# A tail goes on from a token for this long: older ones would have to pass over too many rows.
MAX_TOKEN_AGE = dt.timedelta(days=1)
DEFAULT_RANGE = dt.timedelta(days=1)
# Who asks for one request rarely knows its day.
DEFAULT_REQUEST_RANGE = dt.timedelta(days=31)
_CLOCK_DIFFERENCE = dt.timedelta(minutes=10)
_YEARS = range(2000, 2200)
_BAD_POSITION = "resume_token must be that of a row that a tail has shown"

_BY = {
    pb.USAGE_BY_UNSPECIFIED: By.TENANT,
    pb.USAGE_BY_TENANT: By.TENANT,
    pb.USAGE_BY_KEY: By.KEY,
    pb.USAGE_BY_MODEL: By.MODEL,
    pb.USAGE_BY_DAY: By.DAY,
    pb.USAGE_BY_MONTH: By.MONTH,
    pb.USAGE_BY_STATUS: By.STATUS,
}
_OUTCOMES: dict[Outcome, pb.Outcome.ValueType] = {
    "completed": pb.OUTCOME_COMPLETED,
    "client_closed": pb.OUTCOME_CLIENT_CLOSED,
    "upstream_failed": pb.OUTCOME_UPSTREAM_FAILED,
    "refused": pb.OUTCOME_REFUSED,
    "crashed": pb.OUTCOME_CRASHED,
    "cut": pb.OUTCOME_CUT,
    "correction": pb.OUTCOME_CORRECTION,
}
_OUTCOME_NAMES = {number: name for name, number in _OUTCOMES.items()}
_PROVENANCES: dict[Provenance, pb.Provenance.ValueType] = {
    "reported": pb.PROVENANCE_REPORTED,
    "counted": pb.PROVENANCE_COUNTED,
    "estimated": pb.PROVENANCE_ESTIMATED,
}
_LIMIT_SOURCES = {
    "none": pb.LIMIT_SOURCE_NONE,
    "tenant": pb.LIMIT_SOURCE_TENANT,
    "key": pb.LIMIT_SOURCE_KEY,
}


def read_by(value: int) -> By:
    """What the rows are about. Raises ``InvalidRequestError``."""
    by = next((by for number, by in _BY.items() if number == value), None)
    if by is None:
        raise InvalidRequestError("by must be one of tenant, key, model, day, month, status")
    return by


def read_filter(
    request: pb.QueryAuditRequest | pb.TailAuditRequest, tenant_id: TenantId | None, key_id: KeyId | None
) -> AuditFilter:
    """Which rows are asked for. Raises ``InvalidRequestError`` with every fault."""
    faults = []
    if len(request.model) > MAX_MODEL_LENGTH or "\0" in request.model:
        faults.append(f"model must have at most {MAX_MODEL_LENGTH} characters")
    if request.HasField("status") and not 0 <= request.status <= 999:
        faults.append("status must be from 0 to 999")
    if request.outcome != pb.OUTCOME_UNSPECIFIED and request.outcome not in _OUTCOME_NAMES:
        faults.append(f"outcome must be one of {', '.join(_OUTCOMES)}")
    request_id = request.request_id if isinstance(request, pb.QueryAuditRequest) else ""
    if len(request_id) > MAX_REQUEST_ID_LENGTH or "\0" in request_id:
        faults.append(f"request_id must have at most {MAX_REQUEST_ID_LENGTH} characters")
    if faults:
        raise InvalidRequestError(*faults)
    return AuditFilter(
        tenant_id=tenant_id,
        key_id=key_id,
        model=_spelled(request.model) or None,
        status=request.status if request.HasField("status") else None,
        outcome=_OUTCOME_NAMES.get(request.outcome),
        request_id=request_id or None,
    )


def _spelled(model: str) -> str:
    """A model as the audit log spells it; what is no name stays as it is and finds nothing, or itself."""
    try:
        return modelname.display(modelname.canonical(model))
    except modelname.ModelNameError:
        return model


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A range of time, and where in it a page begins (moment, event id)."""

    since: dt.datetime
    before: dt.datetime
    after: tuple[dt.datetime, str] | None


def read_span(request: pb.QueryAuditRequest, *, now: dt.datetime) -> Span:
    """The range of a query. Raises ``InvalidRequestError``."""
    position = convert.read_page_token(request.page_token, 3)
    try:
        after = None if position is None else (_read_utc(position[0]), position[1])
        continued = None if position is None else _read_utc(position[2])
    except ValueError:
        raise InvalidRequestError("page_token must be the next_page_token of the page before") from None
    # Rows bear the time of the machine that served them, which may be ahead of ours.
    before = _read_moment("to", request.to) if request.HasField("to") else now + _CLOCK_DIFFERENCE
    if request.HasField("from"):
        # The field is called as operators type it, which is a keyword here.
        since = _read_moment("from", getattr(request, "from"))
    else:
        since = continued or before - (DEFAULT_REQUEST_RANGE if request.request_id else DEFAULT_RANGE)
    if since >= before:
        raise InvalidRequestError("from must be before to")
    if before - since > dt.timedelta(days=MAX_AUDIT_DAYS):
        raise InvalidRequestError(f"from must be at most {MAX_AUDIT_DAYS} days before to")
    return Span(since=since, before=before, after=after)


def write_span_position(span: Span, last: AuditEntry) -> str:
    """Where the page after a row begins."""
    return convert.write_page_token(last.created_at.isoformat(), last.event_id, span.since.isoformat())


def read_key_position(token: str) -> tuple[dt.datetime, KeyId] | None:
    """After which key a page begins, None for the first one. Raises ``InvalidRequestError``."""
    position = convert.read_page_token(token, 2)
    try:
        return None if position is None else (_read_utc(position[0]), KeyId(str(uuid.UUID(position[1]))))
    except ValueError:
        raise InvalidRequestError("page_token must be the next_page_token of the page before") from None


def write_key_position(last: Key) -> str:
    """Where the page after a key begins."""
    return convert.write_page_token(last.created_at.isoformat(), last.id)


def check_correction(request: pb.AdjustBudgetRequest) -> None:
    """Raises ``InvalidRequestError`` with every fault that can be told without looking anything up."""
    faults = corrections.correction_faults(
        tokens=request.tokens, reason=request.reason, correction_id=request.correction_id
    )
    if not request.tenant and not request.key:
        faults.insert(0, "tenant or key is required")
    if faults:
        raise InvalidRequestError(*faults)


def _read_moment(field: str, message: Timestamp) -> dt.datetime:
    try:
        moment = convert.read_moment(message)
    except ValueError as fault:
        raise InvalidRequestError(f"{field} {fault}") from None
    if moment.year not in _YEARS:
        raise InvalidRequestError(f"{field} must be in the years {_YEARS.start} to {_YEARS.stop - 1}")
    return moment


def _read_utc(text: str) -> dt.datetime:
    moment = dt.datetime.fromisoformat(text)
    if moment.tzinfo is None or moment.year not in _YEARS:
        raise ValueError("no moment of the audit log")
    return moment


def write_resume_token(position: Position, at: dt.datetime) -> str:
    """Where a tail goes on."""
    return convert.write_page_token(str(position.ingested), position.event_id, str(int(at.timestamp())))


def read_resume_token(token: str, *, now: dt.datetime) -> Position | None:
    """The position of a token, None without one. Raises ``InvalidRequestError``."""
    try:
        parts = convert.read_page_token(token, 3)
        if parts is None:
            return None
        position = Position(int(parts[0]), parts[1])
        age = now - dt.datetime.fromtimestamp(int(parts[2]), dt.UTC)
    except (InvalidRequestError, ValueError, OverflowError, OSError):
        raise InvalidRequestError(_BAD_POSITION) from None
    if not 0 <= position.ingested < 2**63 or "\0" in position.event_id or age < -_CLOCK_DIFFERENCE:
        raise InvalidRequestError(_BAD_POSITION)
    if age > MAX_TOKEN_AGE:
        raise InvalidRequestError("resume_token must not be older than a day: use query-audit for what came before")
    return position


def write_sum(row: UsageSum) -> pb.UsageRow:
    """The message of a row of sums."""
    return pb.UsageRow(**{field: getattr(row, field) for field in row.__struct_fields__})


def write_budget(budget: Budget) -> pb.Budget:
    """The message of a budget."""
    counter = budget.counter
    return pb.Budget(
        key="" if budget.key is None else budget.key.prefix,
        key_name="" if budget.key is None else budget.key.name,
        period=budget.period,
        limit=budget.limit,
        limit_source=_LIMIT_SOURCES[budget.source],
        ledger_used=budget.spent.tokens,
        used=None if counter is None else counter.used,
        reserved=None if counter is None else counter.reserved,
        remaining=budget.remaining,
        requests=budget.spent.requests,
        ends_at=convert.write_moment(budget.ends_at),
    )


def write_entry(entry: AuditEntry) -> pb.AuditRow:
    """The message of a row of the audit log."""
    return pb.AuditRow(
        created_at=convert.write_moment(entry.created_at),
        request_id=entry.request_id,
        tenant=entry.tenant,
        key=entry.key,
        dialect=entry.dialect,
        endpoint=entry.endpoint,
        model=entry.model,
        backend=entry.backend,
        status=entry.status,
        outcome=_OUTCOMES[entry.outcome],
        refusal=entry.refusal,
        prompt_tokens=entry.prompt_tokens,
        completion_tokens=entry.completion_tokens,
        total_tokens=entry.total_tokens,
        provenance=_PROVENANCES[entry.provenance],
        occurrences=entry.occurrences,
        duration_ms=entry.duration_ms,
        ttft_ms=entry.ttft_ms,
        client_ip=entry.client_ip,
        reason=entry.reason,
        operator=entry.operator,
        event_id=entry.event_id,
        day=f"{entry.day:%Y%m%d}",
    )
