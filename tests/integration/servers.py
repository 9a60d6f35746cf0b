"""Databases for tests of the control plane: migrated once, copied for each test, so that none sees another's rows."""

from __future__ import annotations

import base64
import secrets

import asyncpg

from controlplane import config
from controlplane.store import engine, migrate
from deploy.local.postgres import Postgres

TEMPLATE = "migrated"


def environment(database_url: str, redis_url: str, **more: str) -> dict[str, str]:
    return {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "GATEWAY_KEY_PEPPER": "a pepper for tests only",
        "GATEWAY_SEALING_KEY": base64.b64encode(bytes(32)).decode(),
        "GATEWAY_ADMIN_BIND": "127.0.0.1:0",
        "GATEWAY_ADMIN_TOKEN": "admin-token-for-tests",
        "ARGON2_TIME_COST": "1",
        "ARGON2_MEMORY_COST_KIB": "1024",
        "ARGON2_PARALLELISM": "1",
    } | more


def settings_for(database_url: str, redis_url: str, **more: str) -> config.Settings:
    return config.load(environment(database_url, redis_url, **more))


def owner_url(server: Postgres, database: str) -> str:
    return server.owner_dsn.rsplit("/", 1)[0] + f"/{database}"


async def make_template(server: Postgres) -> None:
    """A migrated database to copy from."""
    await execute(server.dsn_of("postgres"), f"CREATE DATABASE {TEMPLATE} OWNER gateway")
    await migrate(settings_for(owner_url(server, TEMPLATE), "redis://127.0.0.1"))


async def copy_of_template(server: Postgres) -> str:
    """A new migrated database; gives the owner's address."""
    name = f"test_{secrets.token_hex(6)}"
    await execute(server.dsn_of("postgres"), f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} OWNER gateway")
    return owner_url(server, name)


async def execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url, ssl=False)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def connect(url: str) -> None:
    await engine.connect(url, pool_size=4, pool_overflow=8)
