"""What a client reads of an error: the one table of statuses and messages, in both dialects' shapes.

Every class of ``dataplane.errors`` has its row; an error that is not listed, and every exception that is no
``GatewayError``, is a generic 500. Messages say nothing of backends, models or reasons: a model that is forbidden,
unknown or invalid reads the same, and so does every refused key. The shapes are OpenAI's
(``{"error": {"message", "type", "param", "code"}}``) and Ollama's (``{"error": "…"}``, with our code beside it).
"""

from __future__ import annotations

from typing import Any

import msgspec

from dataplane import errors
from dataplane.api import header
from dataplane.api.dialect import JSON, JSON_UTF8
from dataplane.rates import Rates
from dataplane.values import Dialect


class Row(msgspec.Struct, frozen=True):
    """How one class of errors is answered. Without a message of its own the row shows the error's ``message``.

    ``closes``: the reply ends its connection, because where the next request would begin is not known or not awaited.
    """

    status: int
    type: str
    message: str | None
    closes: bool = False


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """An error reply, ready to send."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


INTERNAL = Row(500, "api_error", "internal error")
EXHAUSTED_TYPE = "insufficient_quota"

_UNAVAILABLE = "the gateway cannot serve this request now; try again later"

_UNAUTHENTICATED = Row(401, "authentication_error", "invalid API key")

TABLE: dict[type[BaseException], Row] = {
    errors.AuthenticationError: _UNAUTHENTICATED,
    errors.KeyRefusedError: _UNAUTHENTICATED,
    errors.TooManyFailuresError: Row(429, "rate_limit_error", "too many failed authentications; try again later"),
    errors.RequestError: Row(400, "invalid_request_error", None),
    errors.MalformedRequestError: Row(400, "invalid_request_error", None, closes=True),
    errors.TargetTooLongError: Row(414, "invalid_request_error", "the target is too long", closes=True),
    errors.HeadersTooLargeError: Row(431, "invalid_request_error", "the headers are too many", closes=True),
    errors.BodyTooLargeError: Row(413, "invalid_request_error", "the body is too large", closes=True),
    errors.BodyTimeoutError: Row(408, "invalid_request_error", "the body did not arrive in time", closes=True),
    errors.IncompleteBodyError: Row(400, "invalid_request_error", "the body is incomplete or malformed", closes=True),
    errors.UnsupportedMediaError: Row(415, "invalid_request_error", "the body must be JSON without content encoding"),
    errors.ForbiddenError: Row(403, "permission_error", "not permitted"),
    errors.UnknownRouteError: Row(404, "not_found_error", "not found"),
    errors.LimitExceededError: Row(429, "rate_limit_error", None),
    errors.CannotCheckError: Row(503, "api_error", _UNAVAILABLE),
    errors.NotReadyError: Row(503, "api_error", _UNAVAILABLE),
    errors.LeaseLostError: Row(503, "api_error", "the request was ended by the gateway"),
    errors.UpstreamError: Row(502, "api_error", "no backend could answer; try again later"),
    errors.UpstreamTimeoutError: Row(504, "api_error", "upstream did not answer in time"),
    errors.StreamBrokenError: Row(502, "api_error", "upstream interrupted"),
    # Nobody reads it: the status is for the audit.
    errors.ClientClosedError: Row(499, "api_error", "client closed the connection"),
}

_LIMITS: dict[errors.LimitName, str] = {
    "requests": "too many requests per minute",
    "tokens": "too many tokens per minute",
    "concurrency": "too many requests at once",
    "budget_day": "the token budget of the day",
    "budget_month": "the token budget of the month",
    "budget_total": "the token budget",
}
# A refusal without a time of its own is worth another try after this many seconds.
_DEFAULT_RETRY_AFTER_S = 1
_RETRY_STATUSES = frozenset({429, 502, 503, 504})
_RATES_OF_REQUESTS, _RATES_OF_TOKENS = (
    (header.RATE_LIMIT + counted, header.RATE_REMAINING + counted, header.RATE_RESET + counted)
    for counted in (header.REQUESTS, header.TOKENS)
)
_ENCODER = msgspec.json.Encoder()


def status_of(error: BaseException) -> int:
    """The HTTP status of an error."""
    return _row(error).status


def render(
    error: BaseException, dialect: Dialect, request_id: str, *, request_id_header: bytes = header.REQUEST_ID
) -> Problem:
    """The whole error reply, the header with the request's id included."""
    row = _row(error)
    body = _ENCODER.encode(_shape(error, row, dialect))
    headers = [
        (header.CONTENT_TYPE, JSON if dialect is Dialect.OPENAI else JSON_UTF8),
        (header.CONTENT_LENGTH, b"%d" % len(body)),
        (request_id_header, request_id.encode()),
    ]
    if row.closes:
        headers.append((header.CONNECTION, b"close"))
    if row.status == 401:
        headers.append((header.WWW_AUTHENTICATE, b"Bearer"))
    if isinstance(error, errors.LimitExceededError):
        if error.exhausted:
            headers.append((header.SHOULD_RETRY, b"false"))
        if error.rates is not None:
            headers += rate_headers(error.rates)
    if row.status in _RETRY_STATUSES:
        headers.append((header.RETRY_AFTER, b"%d" % _retry_after_s(error)))
    return Problem(status=row.status, headers=headers, body=body)


def rate_headers(rates: Rates) -> list[tuple[bytes, bytes]]:
    """``x-ratelimit-*`` as OpenAI names them; none for what has no limit."""
    headers: list[tuple[bytes, bytes]] = []
    for names, rate in ((_RATES_OF_REQUESTS, rates.requests), (_RATES_OF_TOKENS, rates.tokens)):
        if rate is not None:
            limit, remaining, reset = names
            headers += (
                (limit, b"%d" % rate.limit), (remaining, b"%d" % rate.remaining), (reset, b"%ds" % rate.reset_s),
            )  # fmt: skip
    return headers


def broken(error: BaseException, dialect: Dialect, request_id: str) -> bytes:
    """The terminal event of a stream that cannot be finished: a line of NDJSON, or a server-sent event.

    No ``done``, no ``[DONE]``: a client must be able to tell it from success.
    """
    shape = _shape(error, _row(error), dialect)
    if dialect is Dialect.OPENAI:
        return b"data: " + _ENCODER.encode(shape) + b"\n\n"
    return _ENCODER.encode({**shape, "request_id": request_id}) + b"\n"


def _row(error: BaseException) -> Row:
    return TABLE.get(type(error), INTERNAL)


def _shape(error: BaseException, row: Row, dialect: Dialect) -> dict[str, Any]:
    message = _message(error) if row.message is None else row.message
    code = _code(error, row)
    if dialect is Dialect.OLLAMA:
        return {"error": message, "code": code}
    kind = EXHAUSTED_TYPE if _is_exhausted(error) else row.type
    param = error.param if isinstance(error, errors.RequestError) else None
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _message(error: BaseException) -> str:
    if isinstance(error, errors.LimitExceededError):
        words = _LIMITS[error.limit]
        if not error.limit.startswith("budget"):
            return f"{words}: the prompt alone is more than the limit" if error.exhausted else words
        return f"{words} is exhausted" if error.exhausted else f"{words} is reserved by requests in flight"
    return error.message if isinstance(error, errors.RequestError) else INTERNAL.message or ""


def _code(error: BaseException, row: Row) -> str:
    if row is INTERNAL or not isinstance(error, errors.GatewayError):
        return errors.GatewayError.code
    if isinstance(error, errors.LimitExceededError):
        return EXHAUSTED_TYPE if _is_exhausted(error) else f"{error.limit}_limit_exceeded"
    return error.code


def _is_exhausted(error: BaseException) -> bool:
    """Whether a budget is used up."""
    return isinstance(error, errors.LimitExceededError) and error.exhausted and error.limit.startswith("budget")


def _retry_after_s(error: BaseException) -> int:
    asked_s = error.retry_after_s if isinstance(error, errors.GatewayError) else None
    return max(asked_s or _DEFAULT_RETRY_AFTER_S, 1)
