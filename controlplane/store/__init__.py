"""Postgres: tables, migrations and one module per aggregate; the only place that imports Piccolo or asyncpg.

Errors of the driver are translated to ``controlplane.errors`` here. May import ``controlplane.core``,
``controlplane.errors`` and ``shared``.
"""

from controlplane.store.migrating import migrate

__all__ = ["migrate"]
