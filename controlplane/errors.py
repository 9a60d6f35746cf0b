"""What can go wrong in the control plane, and the one table that says how a caller sees it.

    ControlPlaneError
    ├── InvalidRequestError         a field breaks its rule; every fault at once
    ├── NotFoundError               no tenant, key or backend of this name
    ├── AlreadyExistsError          the name is taken
    ├── StateConflictError          not possible in the state that the thing is in
    ├── OverloadedError             the hashing pool is full
    ├── QueryTooLargeError          a question about usage takes too long to answer
    ├── UncertainOutcomeError       a change may or may not have happened; repeating it is safe
    ├── InterruptedStreamError      this process ends its streams; another one, or this one again, goes on
    ├── StoreUnavailableError       Postgres cannot be reached or did not answer in time
    ├── RedisUnavailableError       Redis cannot be reached or did not answer in time
    └── UpstreamProbeError          a backend did not answer as an Ollama server does

Errors of callers have texts that a caller may read. Those of machines do not: their text is for our log.
Statuses have the names that gRPC gives them; this module does not import it.
"""

from __future__ import annotations

from enum import StrEnum, auto
from typing import ClassVar, Literal

Source = Literal["client", "upstream", "internal"]


class Status(StrEnum):
    """The gRPC statuses that callers see; members of ``grpc.StatusCode`` have the same names."""

    INVALID_ARGUMENT = auto()
    NOT_FOUND = auto()
    ALREADY_EXISTS = auto()
    FAILED_PRECONDITION = auto()
    RESOURCE_EXHAUSTED = auto()
    UNAVAILABLE = auto()
    INTERNAL = auto()


class ControlPlaneError(Exception):
    """The root. ``code`` is stable, ``source`` says whose fault it is, ``retryable`` whether waiting helps.

    ``public`` tells whether the message may be shown to the caller.
    """

    code: ClassVar[str] = "internal"
    source: ClassVar[Source] = "internal"
    retryable: ClassVar[bool] = False
    public: ClassVar[bool] = False


class InvalidRequestError(ControlPlaneError):
    """A request breaks rules. ``faults`` has one sentence per field, each naming the field and the rule."""

    code = "invalid_request"
    source = "client"
    public = True

    def __init__(self, *faults: str) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


class NotFoundError(ControlPlaneError):
    """There is no such thing; the message names the kind and what was asked for."""

    code = "not_found"
    source = "client"
    public = True


class AlreadyExistsError(ControlPlaneError):
    """The name is taken."""

    code = "already_exists"
    source = "client"
    public = True


class StateConflictError(ControlPlaneError):
    """The request is sound but the thing is in a state that forbids it."""

    code = "state_conflict"
    source = "client"
    public = True


class OverloadedError(ControlPlaneError):
    """A bounded pool is full; trying again later helps."""

    code = "overloaded"
    retryable = True


class QueryTooLargeError(ControlPlaneError):
    """The question must be narrowed; the message says how."""

    code = "query_too_large"
    source = "client"
    public = True


class UncertainOutcomeError(ControlPlaneError):
    """An answer was lost; the message says how to repeat the call without doing it twice."""

    code = "uncertain_outcome"
    retryable = True
    public = True


class InterruptedStreamError(ControlPlaneError):
    """A stream ends although its caller has not asked for it; calling again helps."""

    code = "interrupted"
    retryable = True
    public = True


class StoreUnavailableError(ControlPlaneError):
    """Postgres is away, restarting or too slow."""

    code = "store_unavailable"
    retryable = True


class RedisUnavailableError(ControlPlaneError):
    """Redis is away, restarting or too slow."""

    code = "redis_unavailable"
    retryable = True


class UpstreamProbeError(ControlPlaneError):
    """A backend failed its probe; the message is in our own words, without addresses or credentials."""

    code = "probe_failed"
    source = "upstream"
    public = True


STATUS: dict[type[ControlPlaneError], Status] = {
    InvalidRequestError: Status.INVALID_ARGUMENT,
    NotFoundError: Status.NOT_FOUND,
    AlreadyExistsError: Status.ALREADY_EXISTS,
    StateConflictError: Status.FAILED_PRECONDITION,
    OverloadedError: Status.RESOURCE_EXHAUSTED,
    QueryTooLargeError: Status.RESOURCE_EXHAUSTED,
    UncertainOutcomeError: Status.UNAVAILABLE,
    InterruptedStreamError: Status.UNAVAILABLE,
    StoreUnavailableError: Status.UNAVAILABLE,
    RedisUnavailableError: Status.UNAVAILABLE,
    UpstreamProbeError: Status.FAILED_PRECONDITION,
}

# What a caller reads when the error's own text is not for callers: which part is away, and nothing of where it is.
_GENERIC: dict[type[ControlPlaneError], str] = {
    OverloadedError: "too busy, try again",
    StoreUnavailableError: "Postgres is unavailable, try again",
    RedisUnavailableError: "Redis is unavailable, try again",
}


def rendered(error: BaseException) -> tuple[Status, str]:
    """Status and text for the caller; whatever is not in the table is INTERNAL and says nothing."""
    if not isinstance(error, ControlPlaneError):
        return Status.INTERNAL, "internal error"
    status = STATUS.get(type(error), Status.INTERNAL)
    return status, str(error) if error.public else _GENERIC.get(type(error), "internal error")
