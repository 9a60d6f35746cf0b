"""Every table, as Piccolo sees it. The database is made by ``migrations/*.sql``; a test compares the two.

Enum types of Postgres travel as text; their members are the enums of ``shared.records`` and ``store.outbox``. Tables
whose key has several columns name one of them as primary key, because Piccolo knows no other: never ``save`` a row of
these, insert and update by ``where``.
"""

from __future__ import annotations

from piccolo.columns import (
    JSONB,
    UUID,
    Array,
    BigInt,
    BigSerial,
    Boolean,
    Date,
    Integer,
    Text,
    Timestamptz,
    Varchar,
)
from piccolo.table import Table

from controlplane.store.engine import DB

# Schema gateway: read by the console role.


class Tenants(Table, tablename="tenants", schema="gateway", db=DB):
    """Customers."""

    id = UUID(primary_key=True)
    name = Text(unique=True)
    status = Text()
    version = BigInt()
    created_at = Timestamptz()
    suspended_at = Timestamptz(null=True, default=None)
    prompt_log = Boolean()
    prompt_log_retention_days = Integer(null=True, default=None)


class TenantLimits(Table, tablename="tenant_limits", schema="gateway", db=DB):
    """Limits and grants of tenants; null inherits the deployment's default."""

    tenant_id = UUID(primary_key=True)
    rpm = BigInt(null=True, default=None)
    tpm = BigInt(null=True, default=None)
    concurrent = BigInt(null=True, default=None)
    budget_day = BigInt(null=True, default=None)
    budget_month = BigInt(null=True, default=None)
    budget_total = BigInt(null=True, default=None)
    allow_all_models = Boolean(null=True, default=None)
    allowed_models = Array(base_column=Text(), null=True, default=None)


class APIKeys(Table, tablename="api_keys", schema="gateway", db=DB):
    """API keys: prefix and Argon2id hash, never the key."""

    id = UUID(primary_key=True)
    tenant_id = UUID(index=True)
    prefix = Varchar(length=12, unique=True)
    name = Text()
    hash = Text(secret=True)
    status = Text()
    version = BigInt()
    created_at = Timestamptz()
    expires_at = Timestamptz(null=True, default=None)
    suspended_at = Timestamptz(null=True, default=None)
    revoked_at = Timestamptz(null=True, default=None)
    prompt_log = Boolean()
    prompt_log_retention_days = Integer(null=True, default=None)
    rotated_from = UUID(null=True, default=None)


class KeyLimits(Table, tablename="key_limits", schema="gateway", db=DB):
    """Limits and grants of API keys; null inherits the tenant's."""

    key_id = UUID(primary_key=True)
    rpm = BigInt(null=True, default=None)
    tpm = BigInt(null=True, default=None)
    concurrent = BigInt(null=True, default=None)
    budget_day = BigInt(null=True, default=None)
    budget_month = BigInt(null=True, default=None)
    budget_total = BigInt(null=True, default=None)
    allow_all_models = Boolean(null=True, default=None)
    allowed_models = Array(base_column=Text(), null=True, default=None)


class BudgetUsage(Table, tablename="budget_usage", schema="gateway", db=DB):
    """Tokens used per scope and period (``20261121``, ``202611``, ``total``); the key is all three."""

    scope_kind = Text()
    scope_id = UUID(primary_key=True)
    period = Text()
    prompt_tokens = BigInt()
    completion_tokens = BigInt()
    total_tokens = BigInt()
    requests = BigInt()
    updated_at = Timestamptz()


class AuditLog(Table, tablename="audit_log", schema="gateway", db=DB):
    """One row of metadata per request, partitioned by day; the key is day and event id."""

    event_id = Text(primary_key=True)
    day = Date()
    created_at = Timestamptz()
    request_id = Text()
    tenant_id = UUID(null=True, default=None)
    key_id = UUID(null=True, default=None)
    dialect = Text()
    endpoint = Text()
    model = Text()
    backend = Text()
    status = Integer()
    outcome = Text()
    refusal = Text()
    prompt_tokens = BigInt()
    completion_tokens = BigInt()
    total_tokens = BigInt()
    provenance = Text()
    occurrences = Integer()
    duration_ms = BigInt()
    ttft_ms = BigInt(null=True, default=None)
    client_ip = Text()
    reason = Text()
    operator = Text()
    # The transaction that inserted the row (xid8): what the live tail is ordered by.
    ingested = BigInt()


class PromptLog(Table, tablename="prompt_log", schema="gateway", db=DB):
    """Prompts and replies of keys that opted in, partitioned by day; the key is day and event id."""

    event_id = Text(primary_key=True)
    day = Date()
    created_at = Timestamptz()
    tenant_id = UUID()
    key_id = UUID()
    model = Text()
    prompt = Text(null=True, default=None)
    reply = Text(null=True, default=None)
    expires_on = Date()


class ModelPolicies(Table, tablename="model_policies", schema="gateway", db=DB):
    """What operators decide about models, by canonical name; null decides nothing."""

    model = Text(primary_key=True)
    num_ctx = Integer(null=True, default=None)
    keep_alive = Text(null=True, default=None)
    max_num_predict = Integer(null=True, default=None)
    image_tokens = Integer(null=True, default=None)
    allowed_options = Array(base_column=Text(), null=True, default=None)
    alias = Text(null=True, default=None, unique=True)
    updated_at = Timestamptz()


class Revocations(Table, tablename="revocations", schema="gateway", db=DB):
    """Keys that another service wants revoked; an insert notifies ``key_revoked``."""

    id = BigSerial(primary_key=True)
    key_id = UUID()
    reason = Text()
    ts = Timestamptz()
    processed_at = Timestamptz(null=True, default=None)


# Schema control: not readable for the console role.


class Backends(Table, tablename="backends", schema="control", db=DB):
    """Backends added by RPC; tokens are sealed."""

    id = UUID(primary_key=True)
    name = Text(unique=True)
    url = Text()
    header = Text()
    scheme = Text()
    sealed_token = Text(null=True, default=None, secret=True)
    priority = Integer()
    weight = Integer()
    created_at = Timestamptz()


class Outbox(Table, tablename="outbox", schema="control", db=DB):
    """Changes that must reach Redis; written in the transaction of the change."""

    id = BigSerial(primary_key=True)
    kind = Text()
    subject_id = UUID(null=True, default=None)
    version = BigInt()
    created_at = Timestamptz()
    published_at = Timestamptz(null=True, default=None)
    revision = BigInt(null=True, default=None)


class OperatorAudit(Table, tablename="operator_audit", schema="control", db=DB):
    """Who changed what; never a secret."""

    id = BigSerial(primary_key=True)
    at = Timestamptz()
    caller = Text()
    role = Text()
    method = Text()
    target = Text()
    detail = JSONB()
    outcome = Text()


class DeadLetters(Table, tablename="dead_letters", schema="control", db=DB):
    """Usage events that could not be understood."""

    id = BigSerial(primary_key=True)
    shard = Text()
    entry_id = Text()
    entry = Text()
    reason = Text()
    at = Timestamptz()
