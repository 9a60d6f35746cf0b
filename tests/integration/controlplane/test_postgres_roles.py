"""The roles of Postgres: a control plane works without owning the schema, and nobody can do what is not theirs."""

import datetime as dt
import uuid

import asyncpg
import msgspec
import pytest

from controlplane import config
from controlplane.errors import StoreUnavailableError
from controlplane.store import engine, migrate, retention
from deploy.local.postgres import CONSOLE, CONTROL, OPERATOR, Postgres
from neuronetz.admin.v1 import key_pb2, tenant_pb2
from shared.redaction import Secret
from tests.integration.controlplane.conftest import serving

FORBIDDEN = {
    CONTROL: (
        "DELETE FROM gateway.audit_log",
        "UPDATE gateway.audit_log SET total_tokens = 0",
        "DELETE FROM gateway.api_keys",
        "DELETE FROM gateway.tenants",
        "DELETE FROM gateway.revocations",
        "INSERT INTO gateway.revocations (key_id) VALUES (gen_random_uuid())",
        "DELETE FROM control.operator_audit",
        "UPDATE control.operator_audit SET caller = 'nobody'",
        "DELETE FROM control.migration",
        "TRUNCATE gateway.tenants",
        "DROP TABLE gateway.prompt_log",
        "ALTER TABLE gateway.tenants ADD COLUMN mine text",
        "CREATE TABLE gateway.mine ()",
        "CREATE TABLE control.mine ()",
        "CREATE SCHEMA mine",
        "CREATE ROLE mine",
        "SELECT control.grant_processes()",
        "SELECT control.grant_console()",
        "SELECT pg_read_file('/etc/passwd')",
        "COPY gateway.tenants TO PROGRAM 'true'",
        "SET ROLE gateway",
    ),
    OPERATOR: (
        "SELECT hash FROM gateway.api_keys",
        "SELECT sealed_token FROM control.backends",
        "SELECT * FROM gateway.prompt_log",
        "INSERT INTO gateway.revocations (key_id) VALUES (gen_random_uuid())",
        "UPDATE gateway.tenants SET name = 'x'",
        "SELECT nextval('control.revision')",
        "SELECT gateway.drop_partition('audit_log', '2026-01-01')",
        "SET ROLE gateway",
    ),
    CONSOLE: (
        "SELECT * FROM control.operator_audit",
        "SELECT * FROM control.backends",
        "UPDATE gateway.revocations SET processed_at = now()",
        "UPDATE gateway.tenants SET name = 'x'",
        "SELECT gateway.drop_partition('audit_log', '2026-01-01')",
        "SET ROLE gateway_control",
    ),
}
READABLE = {
    OPERATOR: ("gateway.tenants", "gateway.audit_log", "control.operator_audit", "control.outbox"),
    CONSOLE: (
        "gateway.tenants",
        "gateway.api_keys",
        "gateway.audit_log",
        "gateway.prompt_log",
        "gateway.model_policies",
    ),
}


def as_role(settings: config.Settings, server: Postgres, role: str) -> str:
    """The address of the test's database for a role."""
    return server.role_dsn(role).rsplit("/", 1)[0] + "/" + settings.database_url.reveal().rsplit("/", 1)[1]


def of_control(settings: config.Settings, server: Postgres) -> config.Settings:
    return msgspec.structs.replace(settings, database_url=Secret(as_role(settings, server, CONTROL)))


@pytest.fixture
async def migrated(database: config.Settings) -> config.Settings:
    await engine.disconnect()
    return database


@pytest.mark.parametrize("role", [CONTROL, OPERATOR, CONSOLE])
async def test_a_role_cannot_do_what_it_must_not(migrated, postgres_server, role):
    connection = await asyncpg.connect(as_role(migrated, postgres_server, role), ssl=False)
    try:
        for statement in FORBIDDEN[role]:
            with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.ReadOnlySQLTransactionError)):
                await connection.execute(statement)
        for table in READABLE.get(role, ()):
            assert await connection.fetchval(f"SELECT count(*) FROM {table}") >= 0
    finally:
        await connection.close()


async def test_a_console_that_logs_in_inserts_a_revocation(migrated, postgres_server):
    connection = await asyncpg.connect(as_role(migrated, postgres_server, CONSOLE), ssl=False)
    try:
        await connection.execute("INSERT INTO gateway.revocations (key_id, reason) VALUES ($1, 'stolen')", uuid.uuid4())
    finally:
        await connection.close()


async def test_a_control_plane_serves_without_owning_the_schema(migrated, postgres_server):
    async with serving(of_control(migrated, postgres_server)) as gateway:
        await gateway.call(gateway.tenants.CreateTenant, tenant_pb2.CreateTenantRequest(name="acme"))
        minted = await gateway.call(gateway.keys.CreateKey, key_pb2.CreateKeyRequest(tenant="acme", name="k"))
        await gateway.call(gateway.keys.RevokeKey, key_pb2.RevokeKeyRequest(prefix=minted.prefix))
        async with engine.connection() as connection:
            assert await connection.fetchval("SELECT current_user") == CONTROL
            assert await connection.fetchval("SELECT count(*) FROM control.operator_audit WHERE outcome = 'OK'") == 3


async def test_a_control_plane_that_does_not_own_the_schema_makes_and_drops_partitions(migrated, postgres_server):
    settings = of_control(migrated, postgres_server)
    await engine.connect(settings.database_url.reveal(), pool_size=1, pool_overflow=1)
    try:
        async with engine.connection() as connection:
            await connection.execute("SELECT gateway.ensure_partition('2020-02-03')")
        assert await retention.drop_audit_partitions(before=dt.date(2020, 3, 1)) == 1
        assert await retention.drop_prompt_partitions(before=dt.date(2020, 3, 1)) == 1
        assert await retention.drop_audit_partitions(before=dt.date(2020, 3, 1)) == 0
        async with engine.connection() as connection:
            with pytest.raises(asyncpg.InvalidParameterValueError):
                await connection.execute("SELECT gateway.drop_partition('tenants', '2020-02-03')")
    finally:
        await engine.disconnect()


async def test_a_control_plane_waits_for_the_owner_to_migrate(settings, postgres_server):
    with pytest.raises(StoreUnavailableError, match="run neuronetz-gateway migrate as the owner"):
        await migrate(of_control(settings, postgres_server))
    await migrate(settings)
    await migrate(of_control(settings, postgres_server))
