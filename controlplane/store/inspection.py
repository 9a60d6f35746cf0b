"""What a look at Postgres tells of it: version, rights of the role, schema, partitions, clock. Changes nothing."""

from __future__ import annotations

import asyncpg
import msgspec

from controlplane.store import engine, migrating
from controlplane.store.piccolo_app import APP_CONFIG

_SERVER = """
    SELECT current_setting('server_version_num')::int / 10000 AS version, pg_is_in_recovery() AS is_replica,
           current_user AS role, rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication,
           coalesce((SELECT pg_has_role(nspowner, 'USAGE') FROM pg_namespace WHERE nspname = 'gateway'), false) AS owns,
           EXISTS (SELECT FROM pg_class JOIN pg_namespace space ON space.oid = relnamespace
                   WHERE space.nspname = 'control' AND relname = 'migration') AS has_schema
    FROM pg_roles WHERE rolname = current_user"""
_POWERS = {
    "rolsuper": "superuser",
    "rolbypassrls": "bypasses row security",
    "rolcreaterole": "creates roles",
    "rolcreatedb": "creates databases",
    "rolreplication": "replicates",
}
_AHEAD = """
    SELECT parent.relname AS log,
           max(to_date(right(child.relname, 8), 'YYYYMMDD')) - (now() AT TIME ZONE 'UTC')::date AS days
    FROM pg_inherits
    JOIN pg_class child ON child.oid = inhrelid
    JOIN pg_class parent ON parent.oid = inhparent
    JOIN pg_namespace space ON space.oid = parent.relnamespace
    WHERE space.nspname = 'gateway' AND child.relname ~ '_[0-9]{8}$'
    GROUP BY parent.relname ORDER BY parent.relname"""


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """Postgres as it is now."""

    version: int
    is_replica: bool
    role: str
    # What the role may do beyond its own rows, as phrases.
    powers: tuple[str, ...]
    owns_schema: bool
    # Migrations of this release that have not run, oldest first.
    missing: tuple[str, ...]
    # Days from today for which each log has partitions; empty without a schema.
    days_ahead: dict[str, int]
    # The role may not read which migrations ran.
    is_closed: bool = False


async def condition() -> Condition:
    """Looks; ``engine.connect`` comes first. Raises ``StoreUnavailableError``."""
    async with engine.connection() as connection:
        (server,) = await connection.fetch(_SERVER)
        ran, is_closed = frozenset[str](), False
        if server["has_schema"]:
            try:
                rows = await connection.fetch(
                    "SELECT name FROM control.migration WHERE app_name = $1", APP_CONFIG.app_name
                )
                ran = frozenset(row["name"] for row in rows)
            except asyncpg.InsufficientPrivilegeError:
                is_closed = True
        ahead = {row["log"]: row["days"] for row in await connection.fetch(_AHEAD)}
    return Condition(
        version=server["version"],
        is_replica=server["is_replica"],
        role=server["role"],
        powers=tuple(phrase for column, phrase in _POWERS.items() if server[column]),
        owns_schema=server["owns"],
        missing=() if is_closed else tuple(name for name in migrating.expected() if name not in ran),
        days_ahead=ahead,
        is_closed=is_closed,
    )


async def unix_s() -> float:
    """Seconds since 1970 by the clock of Postgres. Raises ``StoreUnavailableError``."""
    async with engine.connection() as connection:
        seconds: float = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
    return seconds
