"""What the stages ask of the world: small protocols, each named after what it gives.

The adapters are in ``dataplane.state`` (keys, snapshot), ``dataplane.quota`` (leases, failures), ``dataplane.upstream``
(backends) and ``dataplane.api`` (the client). Every call that leaves the process has a deadline inside the adapter and
raises errors of ``dataplane.errors`` only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol

from dataplane.interrupt import Interrupt
from dataplane.native import EmbedReply, Record
from dataplane.rates import Rates
from dataplane.values import (
    Arrival,
    Candidate,
    Credentials,
    Demand,
    Grant,
    InferenceRequest,
    Lease,
    Principal,
    RequestId,
    Usage,
)
from shared.modelname import CanonicalName
from shared.records import ModelPolicyRecord, ModelRecord, UsageEvent

Batch = Sequence[Record] | EmbedReply


class Exchange(Protocol):
    """The client's side of one request, in its dialect."""

    @property
    def arrival(self) -> Arrival:
        """What was known before the body."""
        ...

    @property
    def credentials(self) -> Credentials:
        """Who the client says it is."""
        ...

    async def inference(self) -> InferenceRequest:
        """Reads and parses the body. Raises ``RequestError`` (400, 408, 413, 415)."""
        ...

    def admitted(self, inference: InferenceRequest, rates: Rates) -> None:
        """Takes note of what was granted, for the headers of the reply."""
        ...

    async def deliver(self, batches: AsyncIterator[Batch]) -> None:
        """Writes the reply: as it comes, or whole at the end, as the client asked.

        Raises ``ClientClosedError`` when the client stops reading; what the iterator raises passes through.
        """
        ...


class Keys(Protocol):
    """Resolves API keys."""

    def remembered(self, api_key: str) -> Principal | None:
        """The principal that is in memory for this very key, whose checksum was right when it was put there."""
        ...

    async def principal(self, api_key: str) -> Principal:
        """The principal of a key whose checksum is right, from memory, Redis or the control plane.

        Raises ``AuthenticationError`` or, when it cannot be known, ``CannotCheckError``.
        """
        ...

    async def refreshed(self, principal: Principal) -> Principal:
        """The principal read anew from Redis, because admission has seen a newer version. Raises as above."""
        ...


class Failures(Protocol):
    """Failed authentications by address block, across the fleet."""

    async def record(self, client_ip: str) -> int | None:
        """Counts a failure. Gives the seconds until the block's window ends when it is over its limit, else None.

        Never raises: a failure is refused anyway.
        """
        ...


class FailureLog(Protocol):
    """Failed authentications for the audit log, which knows no tenant for them."""

    def add(self, client_ip: str, reason: str) -> None:
        """Counts one failure. Returns at once and never raises."""
        ...


class Leases(Protocol):
    """Admission in Redis, one script each."""

    async def acquire(self, principal: Principal, request_id: RequestId, demand: Demand, crashed: bytes) -> Lease:
        """Takes slots, reserves tokens and counts the request, for the key and for the tenant, or nothing.

        ``crashed`` is the usage event, without a day, for the case that this worker does not live to settle.

        Raises ``StalePrincipalError`` when a newer version is live, ``AuthenticationError`` for a key or tenant that
        is refused, ``LimitExceededError`` and ``CannotCheckError``.
        """
        ...

    async def check(self, principal: Principal) -> None:
        """The same checks without a lease: for listings and refusals. Raises as ``acquire`` does."""
        ...


class Observer(Protocol):
    """Hears of every request that has ended, for the metrics and the log."""

    def request_ended(
        self, *, arrival: Arrival, principal: Principal | None, event: UsageEvent | None, status: int, duration_s: float
    ) -> None:
        """One request was answered, or would have been; without a principal, and an event, nobody knew whose it was."""
        ...


class Settlements(Protocol):
    """What requests leave behind; owned by the worker. Both return at once and survive the request's cancellation."""

    def settle(self, lease: Lease, principal: Principal, event: UsageEvent) -> None:
        """Returns the slots of a lease, charges the tokens of its usage event and appends it, once."""
        ...

    def append(self, principal: Principal, event: UsageEvent) -> None:
        """Appends a usage event that has no lease."""
        ...


class Refusals(Protocol):
    """Collapses the refusals of one key."""

    def add(self, principal: Principal, event: UsageEvent) -> None:
        """Takes a refusal for the audit; repetitions are counted into one event. Returns at once."""
        ...


class Renewals(Protocol):
    """Keeps leases alive while their requests run."""

    def hold(self, lease: Lease, principal: Principal, interrupt: Interrupt) -> None:
        """Renews a lease from now on, and fires the interrupt with ``LeaseLostError`` when it is lost."""
        ...

    def release(self, lease: Lease) -> None:
        """Stops renewing it."""
        ...


class StalePrincipalError(Exception):
    """Admission saw a newer version of the key or tenant than the principal has: read the record once more."""


class Models(Protocol):
    """The valid snapshot of what is discovered; every call raises ``NotReadyError`` when there is none."""

    def resolve(self, grant: Grant, model: CanonicalName) -> ModelRecord | None:
        """The model as the first backend reports it; None when it may not be used or is not there.

        ``model`` may be an alias: then the record has that as its name, and the model's own as its canonical one.
        """
        ...

    def policy(self, model: CanonicalName) -> ModelPolicyRecord | None:
        """What operators decided about the model, by its own name."""
        ...

    def candidates(self, model: CanonicalName) -> tuple[Candidate, ...]:
        """Backends that have the model, in order of priority."""
        ...

    def listing(self, grant: Grant) -> tuple[ModelRecord, ...]:
        """The effective set, by name: discovered ∩ granted, each model once, and once more by its alias."""
        ...

    def forget(self, backend: str, model: CanonicalName) -> None:
        """The backend answered 404 for the model: do not offer it there until it is discovered again."""
        ...


class Meter(Protocol):
    """What has been seen of a reply."""

    backend: str

    def begin(self, backend: str) -> None:
        """A first record has come from this backend; what was seen of another one's reply is forgotten."""
        ...

    def see(self, record: Record | EmbedReply) -> None:
        """Takes a record into account."""
        ...

    def believable[T: (Record, EmbedReply)](self, final: T) -> T:
        """The final record with the counts that are charged in place of such that cannot be."""
        ...

    def usage(self) -> Usage:
        """Tokens so far, and how they are known."""
        ...

    @property
    def complete(self) -> bool:
        """Whether the final record has been seen."""
        ...

    @property
    def ttft_ms(self) -> int | None:
        """Milliseconds until the first record."""
        ...

    @property
    def reply_text(self) -> str | None:
        """What was answered, when the prompt log wants it."""
        ...


class Reply(Protocol):
    """A reply whose first record has arrived. Iterating gives batches up to and including the final record.

    Raises ``StreamBrokenError`` or ``UpstreamTimeoutError`` when the reply ends in any other way.
    """

    @property
    def backend(self) -> str:
        """The name of the backend that answers."""
        ...

    def __aiter__(self) -> AsyncIterator[Batch]: ...


class Upstreams(Protocol):
    """The backends, as one attempt needs them."""

    def attempt(
        self,
        candidate: Candidate,
        inference: InferenceRequest,
        request_id: RequestId,
        *,
        tenant: str = "",
        elapsed_s: float = 0.0,
    ) -> AbstractAsyncContextManager[Reply]:
        """One attempt: entered when the first valid record is there, left with the connection closed or returned.

        ``tenant`` tells the circuit breaker whose requests fail; ``elapsed_s`` is what earlier attempts have used of
        the request's total time. Raises ``AttemptError`` on entry.
        """
        ...

    def available(self, candidate: Candidate, *, tenant: str = "") -> bool:
        """Whether the backend's circuit breaker lets a request (of this tenant) through now."""
        ...

    def has_time(self, elapsed_s: float) -> bool:
        """Whether so much is left of a request's total time that another attempt makes sense."""
        ...

    def retry_after_s(self, candidate: Candidate) -> int:
        """Whole seconds until the backend's circuit breaker may let a request through, at least 1."""
        ...

    def in_flight(self, backend: str) -> int:
        """Requests that this worker has open at the backend."""
        ...


Unsupported = Literal["tools", "thinking", "chat", "generate", "suffix", "embeddings", "images", "context"]


class AttemptError(Exception):
    """One attempt gave no valid first record. ``model_missing``: the backend does not have the model (404).

    ``status`` is the upstream's when it answered a client error (4xx) that our own request caused, else None: such an
    error is not tried elsewhere; ``unsupported`` says what of it the model cannot do, if the backend named that.
    ``timed_out`` tells a deadline from a fault.
    """

    def __init__(
        self,
        detail: str,
        *,
        model_missing: bool = False,
        status: int | None = None,
        unsupported: Unsupported | None = None,
        timed_out: bool = False,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.model_missing = model_missing
        self.status = status
        self.unsupported = unsupported
        self.timed_out = timed_out
