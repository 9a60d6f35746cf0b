-- Failed authentications are counted per address block; nobody knows whose they would be.
ALTER TABLE gateway.audit_log ALTER COLUMN tenant_id DROP NOT NULL;
