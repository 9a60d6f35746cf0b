"""Errors that a client can read: every class of ``dataplane.errors`` as ``dataplane.api.problems`` renders it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple, get_args

from dataplane import errors
from dataplane.api import problems
from dataplane.errors import GatewayError
from dataplane.values import Dialect
from deploy.references.sections import code, table

_LATER = "Try again after `Retry-After`"
_FIX = "Correct the request"


class Words(NamedTuple):
    """What the code of an error cannot say of it."""

    means: str
    advice: str


_WORDS: dict[type[GatewayError], Words] = {
    GatewayError: Words("Something that nobody has foreseen", "Report it with the request id; a repetition may work"),
    errors.AuthenticationError: Words(
        "No key, or one that is unknown, wrong, revoked, suspended or expired: the answer does not tell which. Also in "
        "place of a whole reply whose key was revoked meanwhile",
        "Check the key; ask the operator for another one",
    ),
    errors.TooManyFailuresError: Words(
        "Too many failed authentications from this address (IPv6: from its /64). A valid key is served all the same",
        "Correct the key",
    ),
    errors.RequestError: Words("A field breaks its rule, or the model cannot do what is asked", _FIX),
    errors.MalformedRequestError: Words("The head of the request can be read in more than one way", _FIX),
    errors.TargetTooLongError: Words("Path and query have more than 8 192 bytes", _FIX),
    errors.HeadersTooLargeError: Words("More than 64 headers", _FIX),
    errors.BodyTooLargeError: Words("The body is longer than `MAX_REQUEST_BODY_BYTES`", "Send less"),
    errors.BodyTimeoutError: Words("The body was not whole within `GATEWAY_BODY_TIMEOUT_S`", "Send it again"),
    errors.IncompleteBodyError: Words("The body broke off, or its chunks are none", "Send it again"),
    errors.UnsupportedMediaError: Words("The body is compressed, or its type is not JSON", _FIX),
    errors.ForbiddenError: Words(
        "A model that is not granted, not installed or no model at all, or a blocked endpoint: the answer does not "
        "tell which",
        "Look at the list of models; ask the operator for the grant",
    ),
    errors.UnknownRouteError: Words("No such path, or not with this method", _FIX),
    errors.CannotCheckError: Words("The key or its limits cannot be checked now, so the request is refused", _LATER),
    errors.NotReadyError: Words("No list of models is valid now, or this replica is stopping", _LATER),
    errors.LeaseLostError: Words("The running request could no longer be accounted for and was cut", _LATER),
    errors.UpstreamError: Words("No backend that has the model could be reached, or none answered properly", _LATER),
    errors.UpstreamTimeoutError: Words("A backend let a deadline pass", _LATER),
    errors.StreamBrokenError: Words(
        "The backend broke off in the middle of the reply; a stream ends with this as its last event", _LATER
    ),
}
_BUDGETS: tuple[tuple[errors.LimitName, str, str], ...] = (
    ("budget_day", "the day", "Wait for the next day (UTC), or ask the operator"),
    ("budget_month", "the month", "Wait for the next month (UTC), or ask the operator"),
    ("budget_total", "all time", "Ask the operator"),
)
_LIMITS: dict[tuple[errors.LimitName, bool], Words] = {
    ("requests", False): Words("Requests per minute of the key or of its tenant", _LATER),
    ("tokens", False): Words("Tokens per minute of the key or of its tenant", _LATER),
    ("tokens", True): Words("The prompt alone is more than a minute allows", "Send a shorter prompt"),
    ("concurrency", False): Words("Requests at once of the key or of its tenant", _LATER),
    **{
        (name, exhausted): Words(
            f"The token budget of {period} is used up, for the key or its tenant"
            if exhausted
            else f"What is left of the budget of {period} is reserved by requests that are running",
            after if exhausted else _LATER,
        )
        for name, period, after in _BUDGETS
        for exhausted in (True, False)
    },
}
# Nobody reads the first: its client has gone. The second looks like a refused key, on purpose.
_UNSEEN = (errors.ClientClosedError, errors.KeyRefusedError)


def classes() -> tuple[type[GatewayError], ...]:
    """Every error that a client may read, the unforeseen one included."""
    known = [kind for kind in problems.TABLE if issubclass(kind, GatewayError) and kind not in _UNSEEN]
    return (*known, GatewayError)


def refusals() -> str:
    """The table of errors by status."""
    rows = sorted(_rows(), key=lambda row: int(row[0]))
    head = ("Status", "`code`", "`type` (OpenAI)", "Message", "What it means", "What to do")
    return table(head, rows)


def _rows() -> Iterator[Sequence[str]]:
    for kind in classes():
        if kind is errors.LimitExceededError:
            for name in get_args(errors.LimitName):
                for exhausted in (False, True):
                    words = _LIMITS.get((name, exhausted))
                    if words is not None:
                        yield _row(errors.LimitExceededError(name, retry_after_s=1, exhausted=exhausted), words)
        else:
            yield _row(_example(kind), _WORDS[kind])


def _row(error: GatewayError, words: Words) -> Sequence[str]:
    problem = problems.render(error, Dialect.OPENAI, "")
    shown = json.loads(problem.body)["error"]
    names = {name for name, _ in problem.headers}
    advice = words.advice
    if b"x-should-retry" in names:
        advice += ". `x-should-retry: false`"
    means = words.means + (". The connection ends" if b"connection" in names else "")
    message = (
        "*names the field and the rule*"
        if isinstance(error, errors.RequestError) and not shown["message"]
        else (shown["message"])
    )
    return str(problem.status), code(shown["code"]), code(shown["type"]), message, means, advice


def _example(kind: type[GatewayError]) -> GatewayError:
    if issubclass(kind, errors.RequestError):
        return kind("")
    if kind is errors.AuthenticationError:
        return errors.AuthenticationError("unknown")
    if kind is errors.ForbiddenError:
        return errors.ForbiddenError("model_not_allowed")
    return kind()
