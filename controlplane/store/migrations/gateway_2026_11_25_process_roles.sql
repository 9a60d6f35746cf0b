-- Control planes need not own the schema: what only an owner can do is done by functions that run as the owner.

ALTER FUNCTION gateway.has_table(text) SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION gateway.ensure_partition(date) SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION gateway.ensure_partitions(integer) SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

-- Drops the partition of one day of one of the logs; false when there is none, or when a prompt in it is still kept.
-- The caller holds the lock that keeps two control planes from doing it at once, and sets how long to wait for readers.
CREATE FUNCTION gateway.drop_partition(parent text, day date) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    partition text := parent || '_' || to_char(day, 'YYYYMMDD');
    kept boolean;
BEGIN
    IF parent NOT IN ('audit_log', 'prompt_log') THEN
        RAISE EXCEPTION '% has no partitions by day', parent USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF NOT gateway.has_table(partition) THEN
        RETURN false;
    END IF;
    IF parent = 'prompt_log' THEN
        EXECUTE format('LOCK TABLE gateway.%I IN ACCESS EXCLUSIVE MODE', partition);
        EXECUTE format('SELECT EXISTS (SELECT FROM gateway.%I)', partition) INTO kept;
        IF kept THEN
            RETURN false;
        END IF;
    END IF;
    EXECUTE format('DROP TABLE gateway.%I', partition);
    RETURN true;
END
$$;

-- Grants the roles of `deploy/postgres/roles.sql` what they need, those that exist. Called after every migration run,
-- so that a role that an administrator made later gets its rights at the next run.
CREATE FUNCTION control.grant_processes() RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    granted text[] := '{}';
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'gateway_control') THEN
        GRANT USAGE ON SCHEMA gateway, control TO gateway_control;
        GRANT SELECT ON ALL TABLES IN SCHEMA gateway, control TO gateway_control;
        ALTER DEFAULT PRIVILEGES IN SCHEMA gateway GRANT SELECT ON TABLES TO gateway_control;
        GRANT INSERT, UPDATE ON gateway.tenants, gateway.tenant_limits, gateway.api_keys, gateway.key_limits,
            gateway.budget_usage TO gateway_control;
        GRANT INSERT, UPDATE, DELETE ON gateway.model_policies, control.backends, control.outbox TO gateway_control;
        -- The ledger grows and is never edited.
        GRANT INSERT ON gateway.audit_log, control.operator_audit, control.dead_letters TO gateway_control;
        GRANT UPDATE (outcome) ON control.operator_audit TO gateway_control;
        GRANT INSERT, DELETE ON gateway.prompt_log TO gateway_control;
        GRANT UPDATE (processed_at) ON gateway.revocations TO gateway_control;
        GRANT USAGE, SELECT, UPDATE ON SEQUENCE control.revision TO gateway_control;
        GRANT EXECUTE ON FUNCTION gateway.has_table(text), gateway.ensure_partition(date),
            gateway.ensure_partitions(integer), gateway.drop_partition(text, date) TO gateway_control;
        granted := granted || 'gateway_control'::text;
    END IF;
    IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'gateway_operator') THEN
        GRANT USAGE ON SCHEMA gateway, control TO gateway_operator;
        GRANT SELECT ON gateway.tenants, gateway.tenant_limits, gateway.key_limits, gateway.budget_usage,
            gateway.audit_log, gateway.revocations, gateway.model_policies, control.outbox, control.operator_audit,
            control.dead_letters, control.revision TO gateway_operator;
        -- Neither hashes nor sealed credentials, and no prompts.
        GRANT SELECT (id, tenant_id, prefix, name, status, version, created_at, expires_at, suspended_at, revoked_at,
            prompt_log, prompt_log_retention_days) ON gateway.api_keys TO gateway_operator;
        GRANT SELECT (id, name, url, header, scheme, priority, weight, created_at) ON control.backends
            TO gateway_operator;
        granted := granted || 'gateway_operator'::text;
    END IF;
    RETURN granted;
END
$$;

REVOKE EXECUTE ON FUNCTION gateway.drop_partition(text, date), control.grant_processes() FROM PUBLIC;
