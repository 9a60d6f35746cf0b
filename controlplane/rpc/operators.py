"""``OperatorService``: who is calling, and who has changed what."""

from __future__ import annotations

import datetime as dt

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from controlplane.errors import InvalidRequestError
from controlplane.rpc import authz, convert
from controlplane.store import operator_audit
from controlplane.store.operator_audit import AuditFilter, AuditRow
from neuronetz.admin.v1 import operator_pb2 as pb
from neuronetz.admin.v1 import operator_pb2_grpc

type Context = grpc.aio.ServicerContext[object, object]

MAX_FILTER_LENGTH = 300


class OperatorService(operator_pb2_grpc.OperatorServiceServicer):
    """Reads what the interceptor knows and has written."""

    async def WhoAmI(self, request: pb.WhoAmIRequest, context: Context) -> pb.WhoAmIResponse:
        """As the proto says."""
        caller = authz.CALLER.get()
        methods = [method.lstrip("/") for method in authz.RULES if authz.allowed(caller, method) is not None]
        return pb.WhoAmIResponse(
            caller=caller.name, role=caller.role, credential=caller.credential, methods=sorted(methods)
        )

    async def ListOperatorAudit(
        self, request: pb.ListOperatorAuditRequest, context: Context
    ) -> pb.ListOperatorAuditResponse:
        """As the proto says."""
        size = convert.read_page_size(request.page_size)
        rows = await operator_audit.page(_filter(request), size=size + 1)
        return pb.ListOperatorAuditResponse(
            entries=[_entry(row) for row in rows[:size]],
            next_page_token=convert.write_page_token(str(rows[size - 1].id)) if len(rows) > size else "",
        )


def _filter(request: pb.ListOperatorAuditRequest) -> AuditFilter:
    """What is asked for. Raises ``InvalidRequestError`` with every fault."""
    faults = []
    for field in ("caller", "method", "target"):
        text: str = getattr(request, field)
        if len(text) > MAX_FILTER_LENGTH or "\x00" in text:
            faults.append(f"{field} must have at most {MAX_FILTER_LENGTH} characters")
    moments: dict[str, dt.datetime | None] = {"since": None, "until": None}
    for field in moments:
        message: Timestamp = getattr(request, field)
        try:
            moments[field] = convert.read_moment(message) if request.HasField(field) else None  # type: ignore[arg-type] # names of message fields
        except ValueError as fault:
            faults.append(f"{field} {fault}")
    position = convert.read_page_token(request.page_token, 1)
    if position is not None and not (position[0].isascii() and position[0].isdigit() and len(position[0]) < 19):
        faults.append("page_token must be the next_page_token of the page before")
    if faults:
        raise InvalidRequestError(*faults)
    return AuditFilter(
        caller=request.caller,
        method=request.method,
        target=request.target,
        since=moments["since"],
        until=moments["until"],
        before=None if position is None else int(position[0]),
    )


def _entry(row: AuditRow) -> pb.OperatorAuditEntry:
    return pb.OperatorAuditEntry(
        id=row.id,
        at=convert.write_moment(row.at),
        caller=row.caller,
        role=row.role,
        method=row.method,
        target=row.target,
        outcome=row.outcome,
        request=row.detail,
    )
