"""The values that stages hand to each other. Frozen, no I/O, no library but msgspec.

``Credentials`` → *authenticate* → ``Principal``; ``InferenceRequest`` + ``Principal`` → *admit* → ``Lease``;
*route* → ``Candidate``s; *relay* → ``native.Record``s; *settle* ← ``Usage`` and an outcome.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NewType

import msgspec

from dataplane.native import Body, EmbedReply, Record
from dataplane.rates import Rates
from shared.keyspace import KeyId, LeaseId, Shard, TenantId
from shared.modelname import CanonicalName
from shared.records import ModelRecord, Provenance

RequestId = NewType("RequestId", str)


class Dialect(StrEnum):
    """In whose language the client speaks."""

    OLLAMA = "ollama"
    OPENAI = "openai"


class Operation(StrEnum):
    """What the upstream is asked to do; the value is the upstream path."""

    CHAT = "/api/chat"
    GENERATE = "/api/generate"
    EMBED = "/api/embed"


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """What a request says of its sender. ``authorization`` holds every Authorization header, in order."""

    authorization: tuple[bytes, ...]
    # The address that failures are counted for and the audit names, after trusted proxies.
    client_ip: str


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a request before its body: for the audit, whatever becomes of it."""

    request_id: RequestId
    dialect: Dialect
    # The route as we name it (``/api/chat``), never what a client wrote.
    endpoint: str
    client_ip: str
    # Milliseconds of this machine's wall clock (the audit's) and seconds of its monotonic clock (durations).
    created_at_ms: int
    started_s: float


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one scope with inheritance and defaults resolved; ``None`` is no limit."""

    rpm: int | None
    tpm: int | None
    concurrent: int | None
    budget_day: int | None = None
    budget_month: int | None = None
    budget_total: int | None = None


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """Which discovered models may be used, with inheritance resolved."""

    all_models: bool
    models: frozenset[CanonicalName] = frozenset()

    def allows(self, model: CanonicalName) -> bool:
        """Whether the model may be used, should it exist."""
        return self.all_models or model in self.models


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """The result of authentication. It never authorises alone: admission compares its versions with the live ones."""

    key_id: KeyId
    key_prefix: str
    tenant_id: TenantId
    tenant_name: str
    shard: Shard
    key_version: int
    tenant_version: int
    # 0 when the key never expires; compared with Redis TIME.
    expires_at_ms: int
    key_limits: Limits
    tenant_limits: Limits
    grant: Grant
    prompt_log_days: int | None


class InferenceRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request in the gateway's own terms, whichever dialect it came in."""

    operation: Operation
    # As the client wrote it: echoed in the reply, never sent upstream.
    model: str
    canonical: CanonicalName
    # Without the model's name: that is set per attempt to the spelling of the backend.
    body: Body
    stream: bool
    # The most tokens that this request may produce; 0 for embeddings.
    num_predict: int
    # UTF-8 bytes of everything that becomes part of the prompt.
    prompt_bytes: int
    messages: int = 1
    images: int = 0
    # Ollama generates twice when a thinking model has to follow a format.
    doubles_output: bool = False
    # Less than what the client asked for, or than MAX_NUM_PREDICT, was granted.
    clamped: bool = False
    # Names of dropped fields from a fixed list of ours, and how many others there were.
    ignored: tuple[str, ...] = ()
    unknown_fields: int = 0
    # Options that the dialect set although the client said nothing of them.
    assumed: tuple[str, ...] = ()
    # By the model's policy, in tokens: the context that it is loaded with, and the most that an image becomes; else 0.
    context_tokens: int = 0
    image_tokens: int = 0


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What a request asks of its limits, in tokens."""

    # No prompt can be longer than this: what budgets reserve for it.
    prompt_bound: int
    # What it probably is: what tokens/min goes by.
    prompt_estimate: int
    # The most that it may produce, and how often: twice where the backend generates twice.
    num_predict: int
    output_factor: int = 1


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """One admitted request: a slot of the key and one of its tenant, until settled or expired."""

    lease_id: LeaseId
    shard: Shard
    # Periods that everything of this request is charged to (``20261120``, ``202611``); the day is its partition too.
    day: str
    month: str
    # What was reserved: the bound of the prompt, and ``output_factor`` times the granted output.
    prompt_bound: int
    num_predict: int
    output_factor: int = 1
    rates: Rates = Rates()
    # The usage event for the case that this worker does not live to settle.
    crashed: bytes = b""
    # Seconds of this machine's monotonic clock at which the admission was sent.
    taken_s: float


class Backend(msgspec.Struct, frozen=True, kw_only=True):
    """One backend as requests need it."""

    name: str
    # ``http://host:port`` without a trailing slash.
    url: str
    priority: int
    # Its share among backends of equal priority.
    weight: int = 1
    # The credential header, ready to send; None without a credential. Never logged.
    credential: tuple[str, str] | None = None

    def __repr__(self) -> str:
        return f"Backend(name={self.name!r})"


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A backend that has the model, and how it spells it."""

    backend: Backend
    model: ModelRecord


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Measured tokens of one request and how they are known."""

    prompt_tokens: int
    completion_tokens: int
    provenance: Provenance


Upstream = Record | EmbedReply
