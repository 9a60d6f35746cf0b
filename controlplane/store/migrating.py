"""Runs the migrations: one process at a time, all or nothing, on start or as a command of its own.

A role that does not own the schema can change nothing in it: then the run only checks that nothing is to be done.
"""

from __future__ import annotations

import contextlib
import io
from importlib import import_module
from pathlib import Path
from typing import cast

import asyncpg
from piccolo.apps.migrations.commands.forwards import ForwardsMigrationManager
from piccolo.apps.migrations.tables import Migration
from piccolo.conf.apps import AppConfig, MigrationModule

from controlplane.config import DatabaseSettings
from controlplane.errors import StoreUnavailableError
from controlplane.store import engine, migrations
from controlplane.store.piccolo_app import APP_CONFIG
from shared import logs

MIN_SERVER_VERSION = 15
PARTITION_DAYS_AHEAD = 7
LOCK_TIMEOUT_S = 120.0

# The number means nothing; it must only be the same in every release.
_LOCK = 5_021_877_410

# Who is not the owner finds the schema as it must be, or waits for the owner to migrate it.
_IS_OWNER = "SELECT pg_has_role(nspowner, 'USAGE') FROM pg_catalog.pg_namespace WHERE nspname = 'gateway'"

_log = logs.get("controlplane.store")


class _Migrations(ForwardsMigrationManager):
    """Piccolo's runner, told where application and migrations are instead of searching the import path for them."""

    def get_app_config(self, app_name: str) -> AppConfig:  # noqa: ARG002 - there is one application
        return APP_CONFIG

    def get_migration_modules(self, folder_path: str) -> dict[str, MigrationModule]:
        return _modules(folder_path)


def expected() -> list[str]:
    """The migrations of this release as the bookkeeping table names them, oldest first."""
    return list(_modules(APP_CONFIG.resolved_migrations_folder_path))


def _modules(folder: str) -> dict[str, MigrationModule]:
    names = sorted(path.stem for path in Path(folder).glob("gateway_*.py"))
    found = [cast("MigrationModule", import_module(f"{migrations.__name__}.{name}")) for name in names]
    return {module.ID: module for module in found}


async def migrate(settings: DatabaseSettings) -> None:
    """Brings the schema up to date; safe when several processes call it at once.

    Opens the pool when it is not open yet and leaves it as it was. Raises ``StoreUnavailableError``.
    """
    opened_here = engine.DB.pool is None
    await engine.connect(
        settings.database_url.reveal(), pool_size=settings.database_pool_size, pool_overflow=settings.database_overflow
    )
    try:
        await _migrate_locked()
    finally:
        if opened_here:
            await engine.disconnect()


async def _migrate_locked() -> None:
    lock = await engine.new_connection("migrate")
    try:
        with engine.translated():
            await _check_version(lock)
            # Waiting for the lock is idle; it goes with the connection.
            await lock.execute("SELECT pg_advisory_lock($1)", _LOCK, timeout=LOCK_TIMEOUT_S)
            await _run()
    finally:
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await lock.close(timeout=engine.CLOSE_TIMEOUT_S)


async def _check_version(lock: asyncpg.Connection[asyncpg.Record]) -> None:
    version = lock.get_server_version()
    if version.major < MIN_SERVER_VERSION:
        raise StoreUnavailableError(f"Postgres {version.major} is too old, {MIN_SERVER_VERSION} is needed")


async def _run() -> None:
    try:
        await _run_allowed()
    except asyncpg.InsufficientPrivilegeError as fault:
        raise StoreUnavailableError(
            "the schema is older than this release and this role may not change it: "
            "run neuronetz-gateway migrate as the owner of the database"
        ) from fault


async def _run_allowed() -> None:
    Migration._meta.db = engine.DB
    async with engine.transaction() as connection:
        for schema in ("gateway", "control"):
            # Asked first: CREATE SCHEMA IF NOT EXISTS needs the right to create even when there is nothing to do.
            if not await connection.fetchval("SELECT to_regnamespace($1) IS NOT NULL", schema):
                await connection.execute(f"CREATE SCHEMA {schema}")
        # The runner reports by printing; stdout belongs to the log. One transaction holds its DDL and its bookkeeping.
        with contextlib.redirect_stdout(io.StringIO()):
            result = await _Migrations(app_name=APP_CONFIG.app_name).run()
        if not result.success:
            raise StoreUnavailableError(f"migrations failed: {result.message}")
        is_owner = await connection.fetchval(_IS_OWNER)
        granted = await _grant(connection) if is_owner else []
        await connection.execute("SELECT gateway.ensure_partitions($1)", PARTITION_DAYS_AHEAD)
    _log.info("schema_migrated" if is_owner else "schema_verified", granted=granted)


async def _grant(connection: engine.Connection) -> list[str]:
    """Gives the roles that exist their rights; their names."""
    console = ["console"] if await connection.fetchval("SELECT control.grant_console()") else []
    return [*console, *await connection.fetchval("SELECT control.grant_processes()")]
