"""Postgres: reachable, new enough, migrated, with partitions ahead, and a role that may do no more than it must."""

from __future__ import annotations

from controlplane.doctor.findings import Finding, failed, first_of, names, ok, skipped, warning
from controlplane.errors import StoreUnavailableError
from controlplane.store import engine, inspection
from controlplane.store.inspection import Condition
from controlplane.store.migrating import MIN_SERVER_VERSION
from shared.redaction import Secret

# A connection that stays for all questions, and one more for those asked at the same time.
POOL_SIZE, POOL_OVERFLOW = 1, 1
# Control planes make partitions for 7 days every day.
FEW_DAYS = 3
OWN_ROLE = "gateway_control"


async def reachable(url: Secret) -> list[Finding]:
    """Opens the pool; whoever runs the checks closes it."""
    try:
        await engine.connect(url.reveal(), pool_size=POOL_SIZE, pool_overflow=POOL_OVERFLOW)
        await engine.ping()
    except StoreUnavailableError as fault:
        advice = "start Postgres, or correct host, user, password and name of DATABASE_URL"
        return [failed("postgres.reachable", str(fault), advice)]
    return [ok("postgres.reachable", "answers this role")]


async def server() -> list[Finding]:
    """Everything that one look tells."""
    return judged(await inspection.condition())


def judged(found: Condition) -> list[Finding]:
    """What a condition means."""
    return [_version(found), _role(found), _schema(found), _partitions(found)]


def _version(found: Condition) -> Finding:
    name = "postgres.version"
    if found.version < MIN_SERVER_VERSION:
        return failed(name, f"Postgres {found.version}", f"use Postgres {MIN_SERVER_VERSION} or newer")
    if found.is_replica:
        return failed(name, f"Postgres {found.version}, a replica", "let DATABASE_URL lead to the primary")
    return ok(name, f"Postgres {found.version}")


def _role(found: Condition) -> Finding:
    name = "postgres.role"
    advice = f"let control planes log in as {OWN_ROLE} (deploy/postgres/roles.sql), and only migrate as the owner"
    if "superuser" in found.powers:
        return failed(name, f"{found.role} is a superuser", advice)
    powers = [*found.powers, *(["owns the schema"] if found.owns_schema else [])]
    if powers:
        return warning(name, f"{found.role}: {names(powers)}", advice)
    return ok(name, f"{found.role} has no more rights than it needs")


def _schema(found: Condition) -> Finding:
    name = "postgres.schema"
    if found.is_closed:
        return skipped(name, f"{found.role} may not read which migrations ran", "run doctor as a control plane's role")
    if found.missing:
        advice = "run neuronetz-gateway migrate as the owner of the database"
        return failed(name, f"migrations that have not run: {names(found.missing, most=2)}", advice)
    return ok(name, "up to date")


def _partitions(found: Condition) -> Finding:
    name = "postgres.partitions"
    if not found.days_ahead:
        return skipped(name, "no logs yet")
    days = min(found.days_ahead.values())
    seen = f"{days} days ahead"
    advice = "see that a control plane runs: it makes them every day; neuronetz-gateway migrate does it now"
    return first_of(
        failed(name, "none for tomorrow", advice) if days < 1 else None,
        warning(name, seen, advice) if days < FEW_DAYS else None,
        ok(name, seen),
    )
