"""systemd units, read by systemd where it is installed."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.unit.deploy.tools import READ_BY, SECRETS

UNITS = {
    "dataplane": "neuronetz-dataplane@.service",
    "controlplane": "neuronetz-controlplane.service",
    "migrate": "neuronetz-migrate.service",
}
PROGRAM = "/opt/neuronetz-gateway/bin/python"
# On systemd's scale from 0 (nothing is open) to 10.
MOST_EXPOSURE_TENTHS = 20

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed here")


def settings(root: Path, unit: str) -> list[tuple[str, str]]:
    lines = (root / "deploy" / "systemd" / unit).read_text().splitlines()
    return [(name, value) for name, _, value in (line.partition("=") for line in lines) if not name.startswith("#")]


@pytest.fixture(params=UNITS)
def installed(request, root, tmp_path) -> Path:
    """The unit, told to start a program that exists on this machine."""
    unit = UNITS[request.param]
    text = (root / "deploy" / "systemd" / unit).read_text()
    assert PROGRAM in text
    copy = tmp_path / unit.replace("@", "@8080")
    copy.write_text(text.replace(PROGRAM, "/bin/true"))
    return copy


def analyzed(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@needs_systemd
def test_systemd_finds_no_fault(installed):
    result = analyzed("verify", "--recursive-errors=no", installed)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@needs_systemd
def test_little_is_exposed(installed):
    result = analyzed("security", "--offline=true", f"--threshold={MOST_EXPOSURE_TENTHS}", installed)
    assert result.returncode == 0, result.stdout[-400:]


@pytest.mark.parametrize("plane", UNITS)
def test_every_variable_is_one_that_the_plane_reads(root, plane):
    names = {value.partition("=")[0] for name, value in settings(root, UNITS[plane]) if name == "Environment"}
    assert names
    assert names - READ_BY.get(plane, READ_BY["controlplane"]) == set()
    assert names & SECRETS == set()


@pytest.mark.parametrize("plane", UNITS)
def test_every_secret_is_a_credential(root, plane):
    told = {value.partition("=")[2] for name, value in settings(root, UNITS[plane]) if "_FILE=" in value}
    loaded = {
        f"%d/{value.partition(':')[0]}" for name, value in settings(root, UNITS[plane]) if name == "LoadCredential"
    }
    assert told == loaded


@pytest.mark.parametrize("plane", ["dataplane", "controlplane"])
def test_a_refused_configuration_is_not_tried_again(root, plane):
    from shared.config import EXIT_CONFIGURATION

    assert ("RestartPreventExitStatus", str(EXIT_CONFIGURATION)) in settings(root, UNITS[plane])


@pytest.mark.parametrize("plane", UNITS)
def test_a_unit_has_its_three_sections(root, plane):
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.read(root / "deploy" / "systemd" / UNITS[plane])
    assert parser.sections() == ["Unit", "Service", "Install"]
