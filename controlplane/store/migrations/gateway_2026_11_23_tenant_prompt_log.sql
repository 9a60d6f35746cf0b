-- Keeps the prompts of all keys of a tenant; a key can still ask for its own.
ALTER TABLE gateway.tenants
    ADD COLUMN prompt_log boolean NOT NULL DEFAULT false,
    ADD COLUMN prompt_log_retention_days integer CHECK (prompt_log_retention_days BETWEEN 1 AND 3650);
