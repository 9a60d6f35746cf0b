"""The bytes in Redis: every record as a frozen struct, written and read as JSON.

Two releases always coexist: readers ignore fields that they do not know, writers give new fields a default, and no
field ever changes its meaning (``tests/contract`` keeps a stored sample of each record).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec

from shared.keyspace import KeyId, TenantId
from shared.modelname import CanonicalName


class RecordError(ValueError):
    """Bytes in Redis that are no record of the expected kind."""


class KeyState(StrEnum):
    """What a key is, apart from its expiry, which is a moment and not a state."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    REVOKED = "revoked"


class TenantState(StrEnum):
    """What a tenant is."""

    ACTIVE = "active"
    SUSPENDED = "suspended"


class LimitsRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Limits of a scope; ``None`` inherits (key → tenant → default of the deployment)."""

    rpm: int | None = None
    tpm: int | None = None
    concurrent: int | None = None
    budget_day: int | None = None
    budget_month: int | None = None
    budget_total: int | None = None


class GrantsRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Model grants of a scope; ``None`` inherits, an empty tuple grants nothing."""

    allow_all_models: bool | None = None
    allowed_models: tuple[CanonicalName, ...] | None = None


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An API key as the data plane needs it. ``gateway:key:<prefix>``, no TTL."""

    key_id: KeyId
    tenant_id: TenantId
    prefix: str
    version: int
    state: KeyState = KeyState.ACTIVE
    # HMAC of the whole key; absent only after Redis lost its data, until the key has been verified once.
    digest: str | None = None
    expires_at_ms: int | None = None
    limits: LimitsRecord = LimitsRecord()
    grants: GrantsRecord = GrantsRecord()
    # Days that prompts of this key are kept; None keeps none.
    prompt_log_days: int | None = None


class TenantRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A tenant as the data plane needs it. ``gateway:tenant:<id>``, no TTL."""

    tenant_id: TenantId
    name: str
    version: int
    state: TenantState = TenantState.ACTIVE
    limits: LimitsRecord = LimitsRecord()
    grants: GrantsRecord = GrantsRecord()
    # Days that prompts of all its keys are kept; None keeps those of keys that ask for it themselves.
    prompt_log_days: int | None = None


class BackendRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One backend, in routing order. The token is sealed with the backend's name as associated data."""

    name: str
    url: str
    priority: int = 0
    # Its share among backends of equal priority.
    weight: int = 1
    header: str = "Authorization"
    scheme: str = "Bearer"
    sealed_token: str | None = None


class ModelPolicyRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What operators decide about one model; ``None`` decides nothing."""

    model: CanonicalName
    # Tokens of context that the backend is told to load the model with.
    num_ctx: int | None = None
    # How long the backend keeps it loaded, as Go writes durations (``30m``, ``0s``; ``-1s`` is for ever).
    keep_alive: str | None = None
    # The most tokens that one request may produce.
    max_num_predict: int | None = None
    # The most tokens that one image may become.
    image_tokens: int | None = None
    # Names of ``shared.clientoptions`` that a client may set, as text: readers ignore those of a later release.
    allowed_options: tuple[str, ...] | None = None
    # Another name under which the model is listed, asked for and granted.
    alias: CanonicalName | None = None


class ConfigRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Backends and model policies at a revision.

    ``gateway:config``, no TTL: it never expires, it is only replaced.
    """

    revision: int
    backends: tuple[BackendRecord, ...] = ()
    models: tuple[ModelPolicyRecord, ...] = ()


class ModelRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A model as one backend reported it."""

    # Exactly the backend's own spelling: what is sent upstream.
    name: str
    canonical: CanonicalName
    digest: str = ""
    size_bytes: int = 0
    modified_at: str = ""
    family: str = ""
    families: tuple[str, ...] = ()
    format: str = ""
    parameter_size: str = ""
    quantization: str = ""
    # From /api/show, asked once per digest; empty and 0 when the backend did not say.
    capabilities: tuple[str, ...] = ()
    context_length: int = 0
    embedding_length: int = 0
    # Bytes of template and system prompt that the backend adds to a prompt.
    template_bytes: int = 0
    # Good polls in a row that no longer listed it; it is removed at the third, so that a hiccup denies nobody.
    missed_polls: int = 0


class BackendModelsRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one backend offered at its last good poll."""

    backend: str
    seen_at_ms: int
    models: tuple[ModelRecord, ...] = ()
    # Why the latest poll failed, in our own words; empty when it did not.
    problem: str = ""


class DiscoveredRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What discovery knows. ``gateway:models:discovered``, with a TTL: nothing resolves once it is gone."""

    revision: int
    expires_at_ms: int
    backends: tuple[BackendModelsRecord, ...] = ()


# A lease that was charged as crashed and settled later: its correction is the event ``<lease id>:c``.
CORRECTION_SUFFIX = ":c"

Provenance = Literal["reported", "counted", "estimated"]
Outcome = Literal["completed", "client_closed", "upstream_failed", "refused", "crashed", "cut", "correction"]


class UsageEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request as the ledger will know it: an entry of ``gateway:{sNN}:usage``.

    ``settle`` appends it with the tokens that it charged; ``event_id`` makes the drain idempotent, ``day`` is the
    partition (``20261120``), fixed when the lease was taken.
    """

    event_id: str
    request_id: str
    tenant_id: TenantId
    key_id: KeyId
    day: str
    created_at_ms: int
    dialect: str
    endpoint: str
    outcome: Outcome
    status: int
    model: str = ""
    backend: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    provenance: Provenance = "reported"
    occurrences: int = 1
    duration_ms: int = 0
    # Milliseconds until the first record arrived; None when none did.
    ttft_ms: int | None = None
    client_ip: str = ""
    # Why a request was refused (``concurrency``, ``model_not_allowed``, …); empty when it was not.
    refusal: str = ""
    # Only of a correction that an operator made: why, and who. Of a tenant alone it has an empty ``key_id``.
    reason: str = ""
    operator: str = ""
    # Only with the prompt log: days to keep them, what was asked and what was answered.
    prompt_log_days: int | None = None
    prompt: str | None = None
    reply: str | None = None


class AnonymousFailures(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Authentications of one address block that failed for one reason: an entry of ``gateway:anonymous``."""

    at_ms: int
    # An IPv4 address, or the /64 of an IPv6 address.
    block: str
    # Why, as ``UsageEvent.refusal`` would say it; ``throttled`` when the block had failed too often.
    reason: str
    occurrences: int = 1


_ENCODER = msgspec.json.Encoder()


def encode(record: msgspec.Struct) -> bytes:
    """The bytes of a record."""
    return _ENCODER.encode(record)


def decoder[T: msgspec.Struct](kind: type[T]) -> msgspec.json.Decoder[T]:
    """A decoder for one kind of record; make it once and keep it."""
    return msgspec.json.Decoder(kind)


def decode[T: msgspec.Struct](kind: msgspec.json.Decoder[T], raw: bytes) -> T:
    """The record in ``raw``; raises ``RecordError`` for anything else, without quoting it."""
    try:
        return kind.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as fault:
        raise RecordError("bytes in Redis are not the expected record") from fault
