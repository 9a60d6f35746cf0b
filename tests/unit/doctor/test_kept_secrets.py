"""Secrets are judged by length, variety and the mode of their files."""

from __future__ import annotations

import base64
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.doctor import Deployment, Status
from controlplane.doctor.files import is_for_everybody
from controlplane.doctor.kept_secrets import files, strength


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may enter; those of the test framework are for one user alone."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


async def by_name(environ: dict[str, str]) -> dict[str, Status]:
    return {finding.name: finding.status for finding in await strength(Deployment.read(environ))}


async def test_random_secrets_are_well(environ):
    assert set((await by_name(environ)).values()) == {Status.OK}


@pytest.mark.parametrize(
    ("variable", "value", "name", "status"),
    [
        ("GATEWAY_KEY_PEPPER", "between 16 and 32", "pepper", Status.WARNING),
        ("GATEWAY_ADMIN_TOKEN", "short-admin-token", "admin-token", Status.WARNING),
        ("GATEWAY_DATAPLANE_TOKEN", "aaaabbbb" * 8, "dataplane-token", Status.FAILED),
        ("GATEWAY_SEALING_KEY", base64.b64encode(bytes(32)).decode(), "sealing-key", Status.FAILED),
    ],
)
async def test_weak_secrets_are_found_and_not_shown(environ, variable, value, name, status):
    found = await strength(Deployment.read(environ | {variable: value}))

    assert {finding.name: finding.status for finding in found}[f"secrets.{name}"] is status
    assert value not in repr(found)


async def test_secret_that_everybody_can_read_is_found(environ, open_folder):
    file = open_folder / "pepper"
    file.write_text(environ.pop("GATEWAY_KEY_PEPPER"))
    environ["GATEWAY_KEY_PEPPER_FILE"] = str(file)
    file.chmod(0o644)

    (opened,) = await files(Deployment.read(environ))
    assert opened.status is Status.FAILED
    assert str(file) in opened.seen

    file.chmod(0o640)
    (closed,) = await files(Deployment.read(environ))
    assert closed.status is Status.OK


async def test_file_of_settings_that_everybody_can_read_is_found(environ, open_folder):
    file = open_folder / "gateway.env"
    file.write_text("GATEWAY_ADMIN_TOKEN=x")
    file.chmod(0o604)

    (found,) = await files(Deployment.read(environ, env_file=file))

    assert found.status is Status.FAILED


async def test_without_files_there_is_nothing_to_look_at(deployment):
    assert [finding.status for finding in await files(deployment)] == [Status.SKIPPED]


def test_a_readable_file_in_a_closed_folder_is_closed(open_folder):
    folder = open_folder / "inner"
    folder.mkdir(mode=0o700)
    file = folder / "secret"
    file.touch()
    file.chmod(0o644)
    link = open_folder / "link"
    link.symlink_to(file)

    assert not is_for_everybody(file)
    assert not is_for_everybody(link)
    folder.chmod(0o711)
    assert is_for_everybody(link)


def test_a_file_that_is_not_there_raises(open_folder):
    with pytest.raises(OSError, match="No such file"):
        is_for_everybody(open_folder / "nothing")


async def test_a_file_that_went_away_is_found(environ, open_folder):
    deployment = Deployment.read(environ, env_file=open_folder / "nothing")

    assert [finding.status for finding in await files(deployment)] == [Status.FAILED]
