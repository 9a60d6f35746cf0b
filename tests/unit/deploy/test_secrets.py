"""The secrets that are made for compose files are secrets that the planes accept."""

from __future__ import annotations

import asyncio
import socket
import stat
import subprocess
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
import redis

from controlplane import config as controlplane
from dataplane import config as dataplane
from deploy.local.binaries import postgres_bin, redis_server
from deploy.local.postgres import Postgres
from tests.e2e.harness import eventually

NAMES = {
    "key_pepper", "sealing_key", "admin_token", "dataplane_token", "postgres_password", "postgres_control_password",
    "postgres_operator_password", "postgres_console_password", "redis_dataplane_password",
    "redis_controlplane_password", "redis_operator_password", "owner_database_url", "database_url",
    "redis_url_dataplane", "redis_url_controlplane", "redis_users", "grafana_password",
}  # fmt: skip


def make(root: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    script = root / "deploy" / "secrets.sh"
    return subprocess.run([str(script), str(folder)], capture_output=True, text=True, timeout=30, check=True)


@pytest.fixture
def folder(root, tmp_path) -> Path:
    folder = tmp_path / "secrets"
    make(root, folder)
    return folder


def files(folder: Path, plane: str) -> dict[str, str]:
    """The environment by which a plane finds its secrets in the compose stack."""
    names = {
        "REDIS_URL": f"redis_url_{plane}",
        "GATEWAY_KEY_PEPPER": "key_pepper",
        "GATEWAY_SEALING_KEY": "sealing_key",
        "GATEWAY_DATAPLANE_TOKEN": "dataplane_token",
    }
    return {f"{variable}_FILE": str(folder / name) for variable, name in names.items()}


def test_the_data_plane_starts_with_them(folder):
    settings = dataplane.load(files(folder, "dataplane"))
    assert settings.redis_url.reveal().startswith("redis://gateway_dataplane:")


def test_the_control_plane_starts_with_them(folder):
    own = {"DATABASE_URL_FILE": folder / "database_url", "GATEWAY_ADMIN_TOKEN_FILE": folder / "admin_token"}
    settings = controlplane.load(files(folder, "controlplane") | {name: str(path) for name, path in own.items()})
    assert settings.redis_url.reveal().startswith("redis://gateway_controlplane:")


def test_the_migration_starts_as_the_owner(folder):
    settings = controlplane.load_database({"DATABASE_URL_FILE": str(folder / "owner_database_url")})
    assert settings.database_url.reveal().startswith("postgres://gateway:")


@pytest.mark.parametrize(
    ("address", "password"),
    [
        ("owner_database_url", "postgres_password"),
        ("database_url", "postgres_control_password"),
        ("redis_url_dataplane", "redis_dataplane_password"),
        ("redis_url_controlplane", "redis_controlplane_password"),
    ],
)
def test_an_address_carries_the_password_of_its_user(folder, address, password):
    assert urlsplit((folder / address).read_text()).password == (folder / password).read_text()


def test_the_folder_is_closed_and_the_files_can_be_read_inside_containers(folder):
    assert {path.name for path in folder.iterdir()} == NAMES
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o444}


def test_what_exists_is_kept(root, folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "admin_token").unlink()
    assert make(root, folder).stderr.splitlines() == [f"made {folder}/admin_token"]
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {name for name in NAMES if before[name] != after[name]} == {"admin_token"}


def test_two_stacks_share_no_secret(root, folder, tmp_path):
    other = tmp_path / "other"
    make(root, other)
    assert {name for name in NAMES if (folder / name).read_bytes() == (other / name).read_bytes()} == set()


def test_no_password_stands_in_the_list_of_redis_users(folder):
    users = (folder / "redis_users").read_text()
    assert [name for name in NAMES if name.startswith("redis") and (folder / name).read_text() in users[:-1]] == []
    assert "@dataplane@" not in users


def test_redis_lets_each_plane_in_as_itself_and_nobody_else(root, folder, tmp_path):
    conf = (root / "deploy" / "redis" / "redis.conf").read_text()
    assert "/run/secrets/redis_users" in conf
    (tmp_path / "redis.conf").write_text(conf.replace("/run/secrets/redis_users", str(folder / "redis_users")))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [str(redis_server()), str(tmp_path / "redis.conf"), "--bind", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen([*command, "--maxmemory", "64mb"], cwd=tmp_path, stdout=subprocess.DEVNULL)
    try:
        urls = {plane: (folder / f"redis_url_{plane}").read_text() for plane in ("dataplane", "controlplane")}
        for plane, url in urls.items():
            with redis.Redis.from_url(url.replace("redis:6379", f"127.0.0.1:{port}").strip()) as client:
                assert eventually(partial(answers, client), what="Redis")["role"] == "master", plane
                assert client.info("memory")["maxmemory_policy"] == "noeviction"
                assert client.info("persistence")["aof_enabled"] == 1
                for refused in (("FLUSHALL",), ("CONFIG", "GET", "*"), ("SHUTDOWN",), ("GET", "of-somebody-else")):
                    with pytest.raises(redis.exceptions.NoPermissionError):
                        client.execute_command(*refused)
        with redis.Redis(port=port) as stranger, pytest.raises(redis.exceptions.AuthenticationError):
            stranger.ping()
    finally:
        process.terminate()
        process.wait(timeout=20)


def answers(client: redis.Redis) -> dict[str, Any]:
    try:
        return dict(client.info("replication"))
    except redis.exceptions.ConnectionError:
        return {}


def test_postgres_makes_its_roles_with_them(root, folder, tmp_path):
    with Postgres(tmp_path / "postgres", fsync=False) as server:
        address = urlsplit(server.dsn_of("postgres"))
        environment = {
            "PATH": f"{postgres_bin()}:/usr/bin:/bin",
            "PGHOST": str(address.hostname),
            "PGPORT": str(address.port),
            "PGPASSWORD": str(address.password),
            "POSTGRES_USER": str(address.username),
            "POSTGRES_DB": "gateway",
            "SECRETS": str(folder),
            "ROLES": str(root / "deploy" / "postgres" / "roles.sql"),
        }
        subprocess.run([root / "deploy" / "postgres" / "init.sh"], env=environment, check=True, timeout=30)
        dsn = (
            (folder / "database_url")
            .read_text()
            .strip()
            .replace("@postgres:5432", f"@{address.hostname}:{address.port}")
        )
        assert asyncio.run(user_of(dsn)) == "gateway_control"


async def user_of(dsn: str) -> str:
    connection = await asyncpg.connect(dsn, ssl=False)
    try:
        user: str = await connection.fetchval("SELECT current_user")
        return user
    finally:
        await connection.close()
