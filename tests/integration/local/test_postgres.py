import asyncio
import os
import shutil
import subprocess
from pathlib import Path

import asyncpg
import psutil
import pytest

from deploy.local import identity
from deploy.local.errors import StackError
from deploy.local.postgres import Postgres
from deploy.local.processes import MYSELF
from deploy.local.waiting import wait_until


async def fetch(dsn: str, query: str) -> object:
    connection = await asyncpg.connect(dsn, ssl=False)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


@pytest.fixture
def postgres(tmp_path):
    with Postgres(tmp_path, fsync=False) as server:
        yield server


async def test_the_superuser_and_the_owner_of_the_database_can_connect(postgres):
    assert await fetch(postgres.dsn, "select usesuper from pg_user where usename = current_user") is True
    assert await fetch(postgres.owner_dsn, "select usesuper from pg_user where usename = current_user") is False
    owner = "select pg_get_userbyid(datdba)::text from pg_database where datname = current_database()"
    assert await fetch(postgres.owner_dsn, owner) == "gateway"


async def test_a_wrong_password_is_refused(postgres):
    with pytest.raises(asyncpg.InvalidPasswordError):
        await fetch(f"postgres://postgres:guess@127.0.0.1:{postgres.port}/gateway", "select 1")


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_after_a_stop_or_a_crash_it_comes_back_on_the_same_address_with_its_data(postgres, end):
    dsn = postgres.dsn
    await fetch(dsn, "create table kept as select 42 as answer")
    await fetch(dsn, "checkpoint")
    getattr(postgres, end)()
    with pytest.raises(OSError, match="Connect call failed"):
        await fetch(dsn, "select 1")
    postgres.start()
    assert postgres.dsn == dsn
    assert await fetch(dsn, "select answer from kept") == 42


async def test_the_named_process_is_the_postmaster_and_does_not_see_itself_as_root(postgres):
    process = psutil.Process(postgres.pid)
    assert Path(process.cmdline()[0]).name == "postgres"
    assert process.cwd() == str(postgres.folder / "postgres")


async def test_a_server_left_over_in_the_folder_is_stopped_by_the_next_start(postgres):
    leftover = postgres.pid
    with Postgres(postgres.folder, fsync=False) as second:
        assert not psutil.pid_exists(leftover) or psutil.Process(leftover).status() == psutil.STATUS_ZOMBIE
        assert await fetch(second.dsn, "select 1") == 1


def test_the_written_command_starts_the_same_server_again(postgres):
    postgres.kill()
    server = subprocess.Popen([postgres.folder / "postgres.cmd"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        status = postgres.folder / "postgres" / "postmaster.pid"

        def accepts() -> bool:
            lines = status.read_text().splitlines() if status.exists() else []
            return lines[:1] == [str(server.pid)] and lines[-1].strip() == "ready"

        wait_until(accepts, timeout_s=20, what="Postgres")
        assert asyncio.run(fetch(postgres.dsn, "select 1")) == 1
    finally:
        server.terminate()
        server.wait(20)


def test_a_folder_of_another_major_version_gets_a_message_that_says_so(tmp_path):
    server = Postgres(tmp_path, fsync=False)
    server.start()
    server.stop()
    (tmp_path / "postgres" / "PG_VERSION").write_text("14\n")
    with pytest.raises(StackError, match="made by Postgres 14"):
        server.start()


def test_a_start_that_fails_shows_the_end_of_the_log(tmp_path):
    server = Postgres(tmp_path, fsync=False, settings={"shared_buffers": "nonsense"})
    with pytest.raises(StackError, match="nonsense"):
        server.start()


def test_removing_leaves_no_data_behind(postgres):
    postgres.remove()
    assert not postgres.is_running
    assert not os.path.lexists(postgres.folder / "postgres")


def as_another_user_works() -> bool:
    return os.geteuid() == 0 and Path("/var/lib").stat().st_uid == 0


@pytest.mark.skipif(not as_another_user_works(), reason="only root can change its user")
async def test_where_namespaces_are_forbidden_it_runs_as_another_user_outside_of_the_private_folder(tmp_path):
    server = Postgres(tmp_path, fsync=False, run_as=identity.OTHER_USER)
    try:
        server.start()
        assert psutil.Process(server.pid).uids().real == identity.NOBODY
        assert await fetch(server.dsn, "select 1") == 1
        server.kill()
        server.start()
        assert await fetch(server.dsn, "select 1") == 1
        place = (tmp_path / "postgres").resolve()
        assert not place.is_relative_to(tmp_path)
    finally:
        server.remove()
    assert not place.exists()


@pytest.mark.skipif(not as_another_user_works(), reason="only root can change its user")
async def test_data_outside_of_a_folder_that_was_deleted_by_hand_are_not_taken_for_those_of_the_next(tmp_path):
    server = Postgres(tmp_path / "state", fsync=False, run_as=identity.OTHER_USER)
    try:
        server.start()
        server.stop()
        shutil.rmtree(tmp_path / "state")
        server.start()
        assert await fetch(server.owner_dsn, "select 1") == 1
    finally:
        server.remove()


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs user namespaces")
def test_root_prefers_to_be_nobody_in_a_namespace_and_others_stay_themselves(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert identity.choose(tmp_path) == MYSELF
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert identity.choose(tmp_path) in (identity.NAMESPACE, identity.OTHER_USER)
