"""The secrets that are made for compose files are secrets that the planes accept."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from controlplane import config as controlplane
from dataplane import config as dataplane

NAMES = {
    "key_pepper", "sealing_key", "admin_token", "dataplane_token", "postgres_password", "redis_password",
    "database_url", "redis_url", "redis_acl",
}  # fmt: skip


def make(root: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    script = root / "deploy" / "secrets.sh"
    return subprocess.run([str(script), str(folder)], capture_output=True, text=True, timeout=30, check=True)


@pytest.fixture
def folder(root, tmp_path) -> Path:
    folder = tmp_path / "secrets"
    make(root, folder)
    return folder


def files(folder: Path, *names: str) -> dict[str, str]:
    return {f"{name}_FILE": str(folder / name.lower().removeprefix("gateway_")) for name in names}


COMMON = ("REDIS_URL", "GATEWAY_KEY_PEPPER", "GATEWAY_SEALING_KEY", "GATEWAY_DATAPLANE_TOKEN")


def test_the_data_plane_starts_with_them(folder):
    settings = dataplane.load(files(folder, *COMMON))
    assert settings.redis_url.reveal().startswith("redis://gateway:")


def test_the_control_plane_starts_with_them(folder):
    settings = controlplane.load(files(folder, *COMMON, "DATABASE_URL", "GATEWAY_ADMIN_TOKEN"))
    assert settings.admin_token != settings.dataplane_token


def test_addresses_carry_the_passwords_of_the_servers(folder):
    assert urlsplit((folder / "database_url").read_text()).password == (folder / "postgres_password").read_text()
    assert urlsplit((folder / "redis_url").read_text()).password == (folder / "redis_password").read_text()


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
    assert (folder / "redis_password").read_text() not in (folder / "redis_acl").read_text()
