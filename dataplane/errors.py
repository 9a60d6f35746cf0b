"""Everything that a request can fail with.

::

    GatewayError
    ├── AuthenticationError         the credential is missing or not acceptable; one answer for every reason
    ├── TooManyFailuresError        an address block failed to authenticate too often
    ├── RequestError                the request is not well-formed; names the field and the rule
    │   ├── MalformedRequestError   its head can be read in more than one way
    │   ├── TargetTooLongError
    │   ├── HeadersTooLargeError
    │   ├── BodyTooLargeError
    │   ├── BodyTimeoutError
    │   ├── IncompleteBodyError     the body broke off, or is not framed as it says
    │   └── UnsupportedMediaError
    ├── ForbiddenError              a model or route that the caller may not use, or that does not exist
    ├── UnknownRouteError           no such path, or a wrong method on one that exists
    ├── LimitExceededError          a limit or budget refuses the request now
    ├── CannotCheckError            a check could not be made; fail closed
    │   ├── NotReadyError           nothing is discovered, or this process is starting or draining
    │   └── LeaseLostError          the lease of a running stream could not be renewed, or was cut
    ├── UpstreamError               no backend gave a reply
    │   ├── UpstreamTimeoutError
    │   └── StreamBrokenError       the reply broke off after its first record
    └── ClientClosedError           the client went away; nobody is left to answer

Each has ``code`` (a stable word for programs), ``source`` (who has to act) and ``retryable``. What a client reads is
decided in ``dataplane.api.problems`` and nowhere else; ``detail`` is for our own logs and never leaves the process.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from dataplane.rates import Rates

Source = Literal["client", "upstream", "internal"]
LimitName = Literal["requests", "tokens", "concurrency", "budget_day", "budget_month", "budget_total"]
AuthenticationFailure = Literal[
    "missing", "malformed", "checksum", "unknown", "mismatch", "revoked", "suspended", "expired"
]

# What a request could not be checked against: Redis (away, late, full), a shard without rebuilt state, a version or a
# record that is not there, room for its usage, a control plane, models; or what took its lease.
Unchecked = Literal[
    "redis", "unfenced", "missing", "record", "backlog", "settlement_buffer", "control_plane", "models", "draining",
    "lease_lost",
]  # fmt: skip


class GatewayError(Exception):
    """The root: never raised itself."""

    code: ClassVar[str] = "internal_error"
    source: ClassVar[Source] = "internal"
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str = "", *, retry_after_s: int | None = None) -> None:
        super().__init__(detail or self.code)
        self.detail = detail
        self.retry_after_s = retry_after_s


class AuthenticationError(GatewayError):
    """No acceptable key. ``failure`` is for the audit; clients cannot tell the reasons apart."""

    code = "invalid_api_key"
    source = "client"

    def __init__(self, failure: AuthenticationFailure) -> None:
        super().__init__(failure)
        self.failure = failure


class TooManyFailuresError(GatewayError):
    """Failed authentications of an address block are over their limit; valid keys are still served."""

    code = "too_many_failures"
    source = "client"
    retryable = True


class RequestError(GatewayError):
    """The request breaks a rule. ``message`` names the field and the rule, in our own words, and quotes nothing."""

    code = "invalid_request"
    source = "client"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class MalformedRequestError(RequestError):
    """The head of the request could be read in more than one way."""

    code = "malformed_request"


class TargetTooLongError(RequestError):
    """Path and query are longer than the cap."""

    code = "target_too_long"


class HeadersTooLargeError(RequestError):
    """More headers than the cap."""

    code = "headers_too_large"


class BodyTooLargeError(RequestError):
    """The body is longer than the cap."""

    code = "body_too_large"


class BodyTimeoutError(RequestError):
    """The body did not arrive within its deadline."""

    code = "body_timeout"
    retryable = True


class IncompleteBodyError(RequestError):
    """The body ended before it was whole: the client left, or its chunks are none. The server below tells no more."""

    code = "incomplete_body"


class UnsupportedMediaError(RequestError):
    """A content encoding or a content type that is not JSON."""

    code = "unsupported_media_type"


class ForbiddenError(GatewayError):
    """Not permitted or not existing; ``reason`` tells the audit which, never the client."""

    code = "forbidden"
    source = "client"

    def __init__(self, reason: Literal["model_not_allowed", "endpoint_blocked"]) -> None:
        super().__init__(reason)
        self.reason = reason


class UnknownRouteError(GatewayError):
    """No such path and method."""

    code = "not_found"
    source = "client"


class LimitExceededError(GatewayError):
    """A limit of the key or of its tenant refuses the request now.

    ``exhausted``: trying again does not help before ``retry_after_s``, or ever: a budget is used up, or the prompt
    alone is more than a minute allows.
    """

    code = "limit_exceeded"
    source = "client"
    retryable = True

    def __init__(
        self, limit: LimitName, *, retry_after_s: int, exhausted: bool = False, rates: Rates | None = None
    ) -> None:
        super().__init__(limit, retry_after_s=retry_after_s)
        self.limit = limit
        self.exhausted = exhausted
        self.rates = rates


class CannotCheckError(GatewayError):
    """Redis, the fence, a record or the key verifier could not be asked: deny, and say that it may be tried again.

    ``reason`` is for the metrics.
    """

    code = "cannot_check"
    retryable = True
    reason: Unchecked = "redis"

    def __init__(self, detail: str = "", *, reason: Unchecked | None = None, retry_after_s: int = 1) -> None:
        super().__init__(detail, retry_after_s=retry_after_s)
        if reason is not None:
            self.reason = reason


class NotReadyError(CannotCheckError):
    """The process has no valid snapshot, or is starting or draining."""

    code = "not_ready"
    reason = "models"


class LeaseLostError(CannotCheckError):
    """A running request lost its lease, or can no longer know whether it has it: it was not renewed in time."""

    code = "lease_lost"
    reason = "lease_lost"


class KeyRefusedError(LeaseLostError):
    """The key of a running request, or its tenant, is refused by now: its client is told what its next one would be."""

    code = AuthenticationError.code
    source = AuthenticationError.source
    retryable = False


class UpstreamError(GatewayError):
    """No backend gave a valid first record."""

    code = "upstream_unavailable"
    source = "upstream"
    retryable = True

    def __init__(self, detail: str = "", *, retry_after_s: int = 1) -> None:
        super().__init__(detail, retry_after_s=retry_after_s)


class UpstreamTimeoutError(UpstreamError):
    """A backend let a deadline pass."""

    code = "upstream_timeout"


class StreamBrokenError(UpstreamError):
    """The reply broke off after its first record; it cannot be moved to another backend any more."""

    code = "upstream_interrupted"


class ClientClosedError(GatewayError):
    """The client closed its connection or stopped reading."""

    code = "client_closed"
    source = "client"


def release_frames(error: BaseException) -> None:
    """Lets go of the frames that an error has passed, and all those that it came from.

    They refer to the error as it does to them, so that everything they hold, down to the connection of the request,
    would else live until the interpreter next looks for cycles. Call it where the error is handled for good.
    """
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        # A chain may lead back to where it began: raised again from what came up while it was handled.
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            left += (one.__cause__, one.__context__)
