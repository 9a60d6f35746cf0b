"""The command `doctor`: where its settings come from, what it prints, what it ends with."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

AWAY = "redis://user:pass-word@127.0.0.1:1/0"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.env"
    path.write_text(f"# settings\nREDIS_URL='{AWAY}'\nOLLAMA_BACKENDS=[]\n")
    path.chmod(0o600)
    return path


def test_an_environment_without_servers_is_a_wrong_configuration(offline):
    done = offline("doctor")

    assert (done.exit, done.out) == (64, "")
    assert "REDIS_URL" in done.err
    assert "DATABASE_URL" in done.err


def test_people_see_a_table_and_a_sum_and_no_secret(offline):
    done = offline("doctor", environ={"REDIS_URL": AWAY, "OLLAMA_BACKENDS": "[]"})

    assert done.exit == 8
    assert done.out.splitlines()[0].split("  ")[0] == "STATUS"
    assert any(line.startswith("failed") and "redis.reachable" in line for line in done.out.splitlines())
    assert done.out.splitlines()[-1].startswith("failed: 1 failed, ")
    assert "pass-word" not in done.out + done.err


def test_programs_see_a_document(offline, file):
    done = offline("--output", "json", "doctor", "--env-file", str(file))

    document = json.loads(done.out)
    (failed,) = [finding for finding in document["findings"] if finding["status"] == "failed"]
    assert (done.exit, document["status"], failed["name"]) == (8, "failed", "redis.reachable")
    assert set(failed) == {"name", "status", "seen", "advice"}
    assert failed["advice"]


def test_the_environment_wins_over_the_file_also_when_it_names_a_file_of_its_own(offline, file, tmp_path):
    (tmp_path / "url").write_text("no address")

    done = offline("doctor", "--env-file", str(file), environ={"REDIS_URL_FILE": str(tmp_path / "url")})

    assert done.exit == 64
    assert "must start with redis://" in done.err


def test_a_file_that_is_no_environment_file_is_refused_without_its_contents(offline, file):
    file.write_text("REDIS_URL='never closed\n")

    done = offline("doctor", "--env-file", str(file))

    assert (done.exit, done.out) == (1, "")
    assert "closing quote" in done.err
    assert "never closed" not in done.err


def test_a_file_that_is_not_there_is_wrong_usage(offline, file):
    assert offline("doctor", "--env-file", f"{file}.old").exit == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused(offline, file):
    file.chmod(0)

    assert offline("doctor", "--env-file", str(file)).exit == 1


@pytest.mark.parametrize(
    ("token", "seen"), [({}, "GATEWAY_ADMIN_TOKEN: is required"), ({"GATEWAY_ADMIN_TOKEN": "t" * 40}, "UNAVAILABLE")]
)
def test_an_admin_api_that_cannot_be_called_is_a_finding(offline, token, seen):
    done = offline("doctor", environ={"GATEWAY_ADMIN_ADDRESS": "127.0.0.1:1", "OLLAMA_BACKENDS": "[]"} | token)

    assert done.exit == 8
    assert any(line.startswith("failed") and "admin-api" in line and seen in line for line in done.out.splitlines())
    assert "t" * 40 not in done.out + done.err


def test_help_names_the_exit_codes(offline):
    assert "7 after warnings, 8 when" in " ".join(offline("doctor", "--help").out.split())
    page = offline("--help").out
    assert "  7   doctor" in page
    assert "  8   doctor" in page
