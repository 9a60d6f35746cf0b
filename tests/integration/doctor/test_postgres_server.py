"""A database that is not migrated, a role that may do too much, a server that is away."""

from __future__ import annotations

import msgspec

from controlplane.doctor import Finding, Status, clocks, postgres_server
from controlplane.store import engine, inspection
from deploy.local.postgres import CONTROL, Postgres
from shared.clock import SystemClock
from shared.redaction import Secret
from tests.integration import servers


async def looked_at(url: str) -> dict[str, Finding]:
    found = [*await postgres_server.reachable(Secret(url)), *await postgres_server.server()]
    return {finding.name.removeprefix("postgres."): finding for finding in found}


def of_role(server: Postgres, role: str, url: str) -> str:
    return server.role_dsn(role).rsplit("/", 1)[0] + "/" + url.rsplit("/", 1)[1]


async def test_a_migrated_database_is_well_for_the_role_of_control_planes(migrated_postgres, database_url):
    found = await looked_at(of_role(migrated_postgres, CONTROL, database_url))

    assert {finding.status for finding in found.values()} == {Status.OK}
    assert found["partitions"].seen == "7 days ahead"


async def test_who_owns_the_schema_or_is_superuser_has_too_many_rights(migrated_postgres, database_url):
    owner = await looked_at(database_url)
    assert (owner["role"].status, owner["schema"].status) == (Status.WARNING, Status.OK)
    await engine.disconnect()

    superuser = await looked_at(migrated_postgres.dsn_of(database_url.rsplit("/", 1)[1]))
    assert superuser["role"].status is Status.FAILED


async def test_a_schema_that_is_not_migrated_is_found(migrated_postgres, database_url):
    await servers.execute(database_url, "DELETE FROM control.migration WHERE name LIKE '2026-11-25%'")

    found = await looked_at(database_url)

    assert found["schema"].status is Status.FAILED
    assert "2026-11-25" in found["schema"].seen
    assert "migrate" in found["schema"].advice


async def test_an_empty_database_is_found_and_nothing_raises(postgres):
    try:
        found = await looked_at(postgres.owner_dsn)
    finally:
        await engine.disconnect()

    assert (found["schema"].status, found["partitions"].status) == (Status.FAILED, Status.SKIPPED)


async def test_a_server_that_is_away_or_refuses_is_found_without_its_password(migrated_postgres):
    wrong = migrated_postgres.role_dsn(CONTROL).replace(f"{CONTROL}:", f"{CONTROL}:wrong")
    for url in ("postgres://u:pass-word@127.0.0.1:1/gateway", wrong):
        (found,) = await postgres_server.reachable(Secret(url))
        assert found.status is Status.FAILED
        assert "word" not in found.seen.lower().replace("password", "")


async def test_days_ahead_that_end_are_found_before_they_have(database_url):
    await postgres_server.reachable(Secret(database_url))
    condition = await inspection.condition()

    def judged(days: int, **changes: object) -> dict[str, Status]:
        ahead = msgspec.structs.replace(condition, days_ahead={"audit_log": 7, "prompt_log": days}, **changes)
        return {finding.name: finding.status for finding in postgres_server.judged(ahead)}

    assert [judged(days)["postgres.partitions"] for days in (3, 1, 0)] == [Status.OK, Status.WARNING, Status.FAILED]
    assert judged(7, version=14)["postgres.version"] is Status.FAILED
    assert judged(7, is_replica=True)["postgres.version"] is Status.FAILED
    assert judged(7, is_closed=True)["postgres.schema"] is Status.SKIPPED


async def test_the_clock_of_postgres_is_that_of_this_machine(database_url):
    await postgres_server.reachable(Secret(database_url))

    (found,) = await clocks.compared("postgres", inspection.unix_s, SystemClock())

    assert found.status is Status.OK
