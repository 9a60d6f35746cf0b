-- The tail of the audit log follows the transactions that inserted its rows: a sequence would be drawn before the commit,
-- and a reader that goes by it could pass over a row that is committed later. Rows that are there already all get the
-- transaction of this migration, without being rewritten.
ALTER TABLE gateway.audit_log
    ADD COLUMN ingested xid8 NOT NULL DEFAULT pg_current_xact_id(),
    ADD COLUMN reason text NOT NULL DEFAULT '',
    ADD COLUMN operator text NOT NULL DEFAULT '',
    -- A correction may be of a tenant alone.
    ALTER COLUMN key_id DROP NOT NULL;
CREATE INDEX audit_log_ingested ON gateway.audit_log (ingested, event_id);
-- A correction lies in the partition of the day that it corrects, not of the day on which it was made.
CREATE INDEX audit_log_corrections ON gateway.audit_log (created_at) WHERE outcome = 'correction';
