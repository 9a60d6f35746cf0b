-- Schemas exist already: the migration runner makes them, because its bookkeeping table lives in control.

CREATE TYPE gateway.tenant_status AS ENUM ('active', 'suspended');
CREATE TYPE gateway.key_status AS ENUM ('active', 'suspended', 'revoked');
CREATE TYPE gateway.scope_kind AS ENUM ('key', 'tenant');
CREATE TYPE gateway.token_provenance AS ENUM ('reported', 'counted', 'estimated');
CREATE TYPE gateway.request_outcome AS ENUM
    ('completed', 'client_closed', 'upstream_failed', 'refused', 'crashed', 'cut', 'correction');
CREATE TYPE control.outbox_kind AS ENUM ('key', 'tenant', 'config');

CREATE TABLE gateway.tenants (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name text NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    status gateway.tenant_status NOT NULL DEFAULT 'active',
    version bigint NOT NULL DEFAULT 1 CHECK (version >= 1),
    created_at timestamptz NOT NULL DEFAULT now(),
    suspended_at timestamptz,
    CHECK ((status = 'suspended') = (suspended_at IS NOT NULL))
);

CREATE TABLE gateway.tenant_limits (
    tenant_id uuid PRIMARY KEY REFERENCES gateway.tenants (id) ON DELETE CASCADE,
    rpm bigint CHECK (rpm >= 1),
    tpm bigint CHECK (tpm >= 1),
    concurrent bigint CHECK (concurrent >= 1),
    budget_day bigint CHECK (budget_day >= 0),
    budget_month bigint CHECK (budget_month >= 0),
    budget_total bigint CHECK (budget_total >= 0),
    allow_all_models boolean,
    allowed_models text[]
);

CREATE TABLE gateway.api_keys (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id uuid NOT NULL REFERENCES gateway.tenants (id),
    prefix char(12) NOT NULL UNIQUE CHECK (prefix ~ '^nz_[0-9A-Za-z]{9}$'),
    name text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 100),
    hash text NOT NULL CHECK (hash LIKE '$argon2id$%'),
    status gateway.key_status NOT NULL DEFAULT 'active',
    version bigint NOT NULL DEFAULT 1 CHECK (version >= 1),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    suspended_at timestamptz,
    revoked_at timestamptz,
    prompt_log boolean NOT NULL DEFAULT false,
    prompt_log_retention_days integer CHECK (prompt_log_retention_days BETWEEN 1 AND 3650),
    rotated_from uuid REFERENCES gateway.api_keys (id),
    CHECK ((status = 'revoked') = (revoked_at IS NOT NULL)),
    CHECK (status <> 'suspended' OR suspended_at IS NOT NULL)
);
CREATE INDEX api_keys_tenant_id ON gateway.api_keys (tenant_id, created_at, id);
CREATE INDEX api_keys_created_at ON gateway.api_keys (created_at, id);
CREATE INDEX api_keys_rotated_from ON gateway.api_keys (rotated_from) WHERE rotated_from IS NOT NULL;

CREATE TABLE gateway.key_limits (
    key_id uuid PRIMARY KEY REFERENCES gateway.api_keys (id) ON DELETE CASCADE,
    rpm bigint CHECK (rpm >= 1),
    tpm bigint CHECK (tpm >= 1),
    concurrent bigint CHECK (concurrent >= 1),
    budget_day bigint CHECK (budget_day >= 0),
    budget_month bigint CHECK (budget_month >= 0),
    budget_total bigint CHECK (budget_total >= 0),
    allow_all_models boolean,
    allowed_models text[]
);

CREATE TABLE gateway.budget_usage (
    scope_kind gateway.scope_kind NOT NULL,
    scope_id uuid NOT NULL,
    period text NOT NULL CHECK (period = 'total' OR period ~ '^[0-9]{6}([0-9]{2})?$'),
    prompt_tokens bigint NOT NULL DEFAULT 0,
    completion_tokens bigint NOT NULL DEFAULT 0,
    total_tokens bigint NOT NULL DEFAULT 0,
    requests bigint NOT NULL DEFAULT 0 CHECK (requests >= 0),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (scope_kind, scope_id, period)
);

-- The logs have no foreign keys: a ledger outlives what it speaks of. There is no default partition: rows in it would
-- have to be moved before the day's partition can be made, and the drain makes the partitions that it needs.
CREATE TABLE gateway.audit_log (
    event_id text NOT NULL,
    day date NOT NULL,
    created_at timestamptz NOT NULL,
    request_id text NOT NULL,
    tenant_id uuid NOT NULL,
    key_id uuid NOT NULL,
    dialect text NOT NULL,
    endpoint text NOT NULL,
    model text NOT NULL DEFAULT '',
    backend text NOT NULL DEFAULT '',
    status integer NOT NULL,
    outcome gateway.request_outcome NOT NULL,
    refusal text NOT NULL DEFAULT '',
    prompt_tokens bigint NOT NULL DEFAULT 0,
    completion_tokens bigint NOT NULL DEFAULT 0,
    total_tokens bigint NOT NULL DEFAULT 0,
    provenance gateway.token_provenance NOT NULL,
    occurrences integer NOT NULL DEFAULT 1 CHECK (occurrences >= 1),
    duration_ms bigint NOT NULL DEFAULT 0,
    ttft_ms bigint,
    client_ip text NOT NULL DEFAULT '',
    PRIMARY KEY (day, event_id)
) PARTITION BY RANGE (day);
CREATE INDEX audit_log_created_at ON gateway.audit_log (created_at);
CREATE INDEX audit_log_tenant ON gateway.audit_log (tenant_id, created_at);
CREATE INDEX audit_log_key ON gateway.audit_log (key_id, created_at);
CREATE INDEX audit_log_request ON gateway.audit_log (request_id);

CREATE TABLE gateway.prompt_log (
    event_id text NOT NULL,
    day date NOT NULL,
    created_at timestamptz NOT NULL,
    tenant_id uuid NOT NULL,
    key_id uuid NOT NULL,
    model text NOT NULL DEFAULT '',
    prompt text,
    reply text,
    expires_on date NOT NULL,
    PRIMARY KEY (day, event_id)
) PARTITION BY RANGE (day);
CREATE INDEX prompt_log_key ON gateway.prompt_log (key_id, created_at);
CREATE INDEX prompt_log_expires_on ON gateway.prompt_log (expires_on);

CREATE TABLE gateway.revocations (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key_id uuid NOT NULL,
    reason text NOT NULL DEFAULT '',
    ts timestamptz NOT NULL DEFAULT now(),
    processed_at timestamptz
);
CREATE INDEX revocations_open ON gateway.revocations (id) WHERE processed_at IS NULL;

CREATE FUNCTION gateway.notify_revocation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Only a wake-up: what is to be done is in the table.
    NOTIFY key_revoked;
    RETURN NULL;
END
$$;
CREATE TRIGGER revocations_notify AFTER INSERT ON gateway.revocations
    FOR EACH STATEMENT EXECUTE FUNCTION gateway.notify_revocation();

-- Reads pg_class, because to_regclass may answer from a cache that an advisory lock does not refresh.
CREATE FUNCTION gateway.has_table(wanted text) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN EXISTS (
        SELECT FROM pg_catalog.pg_class
        WHERE relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = 'gateway') AND relname = wanted
    );
END
$$;

-- Makes the partitions of one day. LIKE and ATTACH, because CREATE TABLE … PARTITION OF would lock out readers.
CREATE FUNCTION gateway.ensure_partition(wanted date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    parent text;
    partition text;
BEGIN
    FOREACH parent IN ARRAY ARRAY['audit_log', 'prompt_log'] LOOP
        partition := parent || '_' || to_char(wanted, 'YYYYMMDD');
        CONTINUE WHEN gateway.has_table(partition);
        PERFORM pg_advisory_xact_lock(hashtext('gateway.ensure_partition'));
        CONTINUE WHEN gateway.has_table(partition);
        EXECUTE format('CREATE TABLE gateway.%I (LIKE gateway.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)',
            partition, parent);
        EXECUTE format('ALTER TABLE gateway.%I ATTACH PARTITION gateway.%I FOR VALUES FROM (%L) TO (%L)',
            parent, partition, wanted, wanted + 1);
    END LOOP;
END
$$;

-- Makes the partitions from yesterday up to so many days ahead (UTC).
CREATE FUNCTION gateway.ensure_partitions(days integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    today date := (now() AT TIME ZONE 'UTC')::date;
BEGIN
    FOR ahead IN -1 .. days LOOP
        PERFORM gateway.ensure_partition(today + ahead);
    END LOOP;
END
$$;

CREATE TABLE control.backends (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name text NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    url text NOT NULL,
    header text NOT NULL DEFAULT 'Authorization',
    scheme text NOT NULL DEFAULT 'Bearer',
    sealed_token text,
    priority integer NOT NULL DEFAULT 100,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE SEQUENCE control.revision;

CREATE TABLE control.outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind control.outbox_kind NOT NULL,
    subject_id uuid,
    version bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    published_at timestamptz,
    revision bigint,
    CHECK ((kind = 'config') = (subject_id IS NULL))
);
CREATE INDEX outbox_open ON control.outbox (id) WHERE published_at IS NULL;
CREATE INDEX outbox_published_at ON control.outbox (published_at) WHERE published_at IS NOT NULL;

CREATE TABLE control.operator_audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    caller text NOT NULL,
    role text NOT NULL,
    method text NOT NULL,
    target text NOT NULL DEFAULT '',
    detail jsonb NOT NULL DEFAULT '{}',
    outcome text NOT NULL
);
CREATE INDEX operator_audit_at ON control.operator_audit (at);

CREATE TABLE control.dead_letters (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    shard text NOT NULL,
    entry_id text NOT NULL,
    entry text NOT NULL,
    reason text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (shard, entry_id)
);

-- The console role: reads schema gateway, inserts into the revocations outbox, nothing else. Called after every
-- migration run, so that a role that an administrator made later gets its rights at the next start.
CREATE FUNCTION control.grant_console() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'console') THEN
        BEGIN
            CREATE ROLE console NOLOGIN;
        EXCEPTION
            WHEN insufficient_privilege THEN RETURN false;
            WHEN duplicate_object OR unique_violation THEN NULL;
        END;
    END IF;
    GRANT USAGE ON SCHEMA gateway TO console;
    GRANT SELECT ON ALL TABLES IN SCHEMA gateway TO console;
    ALTER DEFAULT PRIVILEGES IN SCHEMA gateway GRANT SELECT ON TABLES TO console;
    GRANT INSERT ON gateway.revocations TO console;
    RETURN true;
END
$$;

REVOKE ALL ON SCHEMA control FROM PUBLIC;
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA gateway, control FROM PUBLIC;
