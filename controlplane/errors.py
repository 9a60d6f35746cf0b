"""What can go wrong in the control plane, and the one table that says how a caller sees it.

    ControlPlaneError
    ├── InvalidRequestError         a field breaks its rule; every fault at once
    ├── NotFoundError               no tenant, key or backend of this name
    ├── AlreadyExistsError          the name is taken
    ├── StateConflictError          not possible in the state that the thing is in
    ├── OverloadedError             the hashing pool is full
    ├── StoreUnavailableError       Postgres cannot be reached or did not answer in time
    ├── RedisUnavailableError       Redis cannot be reached or did not answer in time
    └── UpstreamProbeError          a backend did not answer as an Ollama server does

Errors of callers have texts that a caller may read. Those of machines do not: their text is for our log.
``grpc.StatusCode`` is all that this module knows of gRPC.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import grpc

Source = Literal["client", "upstream", "internal"]


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


STATUS: dict[type[ControlPlaneError], grpc.StatusCode] = {
    InvalidRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    NotFoundError: grpc.StatusCode.NOT_FOUND,
    AlreadyExistsError: grpc.StatusCode.ALREADY_EXISTS,
    StateConflictError: grpc.StatusCode.FAILED_PRECONDITION,
    OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    StoreUnavailableError: grpc.StatusCode.UNAVAILABLE,
    RedisUnavailableError: grpc.StatusCode.UNAVAILABLE,
    UpstreamProbeError: grpc.StatusCode.FAILED_PRECONDITION,
}

# What a caller reads when the error's own text is not for callers.
_GENERIC = {
    grpc.StatusCode.RESOURCE_EXHAUSTED: "too busy, try again",
    grpc.StatusCode.UNAVAILABLE: "a service that this depends on is unavailable, try again",
}


def rendered(error: BaseException) -> tuple[grpc.StatusCode, str]:
    """Status and text for the caller; whatever is not in the table is INTERNAL and says nothing."""
    if not isinstance(error, ControlPlaneError):
        return grpc.StatusCode.INTERNAL, "internal error"
    status = STATUS.get(type(error), grpc.StatusCode.INTERNAL)
    return status, str(error) if error.public else _GENERIC.get(status, "internal error")
