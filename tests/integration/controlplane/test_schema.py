"""The schema: made once however many start, readable for the console, and what Piccolo believes it to be."""

import asyncio
import datetime as dt
import sys
import uuid
from pathlib import Path

import asyncpg
import pytest

from controlplane.config import Settings
from controlplane.errors import StoreUnavailableError
from controlplane.store import engine, migrations
from controlplane.store.piccolo_app import APP_CONFIG

CONSOLE_TABLES = (
    *("tenants", "tenant_limits", "api_keys", "key_limits", "budget_usage", "audit_log", "prompt_log", "revocations"),
)


async def test_four_processes_that_start_at_once_migrate_once(settings: Settings):
    program = (
        "import asyncio, os\n"
        "from controlplane import config\n"
        "from controlplane.store import migrate\n"
        "asyncio.run(migrate(config.load_database(os.environ)))\n"
    )
    # Nothing else is needed.
    environment = {"DATABASE_URL": settings.database_url.reveal()}
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            program,
            env=environment | {"PYTHONPATH": ".:proto"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        for _ in range(4)
    ]
    outputs = [(await process.communicate())[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, outputs
    assert [output.count(b"Migration") for output in outputs] == [0] * 4
    await engine.connect(settings.database_url.reveal(), pool_size=1, pool_overflow=0)
    try:
        async with engine.connection() as connection:
            scripts = [path.stem for path in Path(migrations.__file__).parent.glob("gateway_*.py")]
            assert await connection.fetchval("SELECT count(*) FROM control.migration") == len(scripts)
    finally:
        await engine.disconnect()


@pytest.mark.usefixtures("database")
async def test_tables_are_what_piccolo_believes_them_to_be():
    async with engine.connection() as connection:
        for table in APP_CONFIG.table_classes:
            rows = await connection.fetch(
                "SELECT column_name, is_nullable FROM information_schema.columns"
                " WHERE table_schema = $1 AND table_name = $2",
                table._meta.schema,
                table._meta.tablename,
            )
            found = {row["column_name"]: row["is_nullable"] == "YES" for row in rows}
            assert found == {column._meta.name: column._meta.null for column in table._meta.columns}, table


@pytest.mark.usefixtures("database")
async def test_console_reads_schema_gateway_and_inserts_revocations_only():
    async with engine.connection() as connection:
        await connection.execute("SELECT gateway.ensure_partition('2031-01-02')")
        readable = [*CONSOLE_TABLES, "audit_log_20310102", "prompt_log_20310102"]
        for table in readable:
            for right in ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE"):
                allowed = await connection.fetchval(
                    "SELECT has_table_privilege('console', $1, $2)", f"gateway.{table}", right
                )
                assert allowed == (right == "SELECT" or (table, right) == ("revocations", "INSERT")), (table, right)
        assert not await connection.fetchval("SELECT has_schema_privilege('console', 'control', 'USAGE')")
        assert not await connection.fetchval("SELECT has_schema_privilege('console', 'gateway', 'CREATE')")


async def test_console_can_only_insert_revocations(database: Settings, postgres_server):
    url = database.database_url.reveal()
    superuser = await asyncpg.connect(postgres_server.dsn_of(url.rsplit("/", 1)[1]), ssl=False)
    try:
        await superuser.execute("SET ROLE console")
        await superuser.execute("INSERT INTO gateway.revocations (key_id, reason) VALUES ($1, 'stolen')", uuid.uuid4())
        assert await superuser.fetchval("SELECT count(*) FROM gateway.revocations") == 1
        for statement in (
            "UPDATE gateway.revocations SET reason = ''",
            "DELETE FROM gateway.revocations",
            "INSERT INTO gateway.tenants (name) VALUES ('x')",
            "SELECT * FROM control.backends",
            "SELECT * FROM control.operator_audit",
            "SELECT gateway.ensure_partitions(1)",
            "SELECT control.grant_console()",
            "CREATE TABLE gateway.mine ()",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await superuser.execute(statement)
    finally:
        await superuser.close()


async def test_insert_into_revocations_notifies(database: Settings):
    heard = asyncio.Event()
    listener = await engine.new_connection("test")
    try:
        await listener.add_listener("key_revoked", lambda *_: heard.set())
        async with engine.connection() as connection:
            await connection.execute("INSERT INTO gateway.revocations (key_id) VALUES ($1)", uuid.uuid4())
        await asyncio.wait_for(heard.wait(), 5)
    finally:
        await listener.close()
    assert database.database_pool_size == 4


@pytest.mark.usefixtures("database")
async def test_partitions_are_made_by_many_at_once():
    day = dt.date(2030, 5, 6)

    async def ensure() -> None:
        async with engine.connection() as connection:
            await connection.execute("SELECT gateway.ensure_partition($1)", day)

    await asyncio.gather(*(ensure() for _ in range(4)))
    async with engine.connection() as connection:
        assert await connection.fetchval("SELECT to_regclass('gateway.audit_log_20300506')") is not None
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute(
                "INSERT INTO gateway.tenants (name) VALUES ('Not A Name')",
            )


async def in_transaction(statement: str) -> None:
    async with engine.transaction() as connection:
        await connection.execute(statement)


@pytest.mark.usefixtures("database")
async def test_failed_transaction_returns_its_connection():
    for _ in range(20):
        with pytest.raises(asyncpg.PostgresSyntaxError):
            await in_transaction("NOT SQL")
    await asyncio.wait_for(engine.ping(), 2)


@pytest.mark.usefixtures("database")
async def test_a_session_that_the_server_ends_costs_no_connection():
    for _ in range(12):
        with pytest.raises(StoreUnavailableError):
            await in_transaction("SELECT pg_terminate_backend(pg_backend_pid())")
    await asyncio.wait_for(engine.ping(), 2)
