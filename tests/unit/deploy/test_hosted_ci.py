"""The hosted CI: workflows against their schema, against zizmor, and against what they promise."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.deploy.tools import run

PINNED = re.compile(r"uses: [A-Za-z0-9_./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")


WORKFLOWS = ("ci.yml", "nightly.yml")


def workflow(root: Path, name: str = "ci.yml") -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((root / ".github" / "workflows" / name).read_text())
    return document


def commands(root: Path, name: str = "ci.yml") -> str:
    jobs = workflow(root, name)["jobs"].values()
    return "\n".join(step.get("run", "") for job in jobs for step in job["steps"])


@pytest.mark.parametrize(
    ("file", "schema"),
    [
        *((f"workflows/{name}", "vendor.github-workflows") for name in WORKFLOWS),
        ("dependabot.yml", "vendor.dependabot"),
    ],
)
def test_a_file_has_the_form_that_the_host_asks_for(root, file, schema):
    result = run("check-jsonschema", "--builtin-schema", schema, root / ".github" / file)
    assert result.returncode == 0, result.stdout


def test_zizmor_finds_nothing(root):
    result = run("zizmor", "--offline", "--no-progress", "--format", "json", root / ".github")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == []


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_action_is_pinned_by_its_digest(root, name):
    lines = (root / ".github" / "workflows" / name).read_text().splitlines()
    used = [line.strip().removeprefix("- ") for line in lines if "uses:" in line]
    assert used
    assert [line for line in used if not PINNED.fullmatch(line)] == []


@pytest.mark.parametrize(("name", "longest_minutes"), [("ci.yml", 60), ("nightly.yml", 90)])
def test_nothing_may_be_written_and_nothing_runs_for_ever(root, name, longest_minutes):
    document = workflow(root, name)
    assert document["permissions"] == {}
    for job_name, job in document["jobs"].items():
        assert job["permissions"] == {"contents": "read"}, job_name
        assert job["timeout-minutes"] <= longest_minutes, job_name


def test_the_suite_runs_on_two_pythons_and_on_valkey_and_redis(root):
    runs = workflow(root)["jobs"]["tests"]["strategy"]["matrix"]["include"]
    assert {one["redis"] for one in runs} == {"valkey", "redis"}
    assert {one["python"] for one in runs} == {"3.12", "3.13"}


@pytest.mark.parametrize(
    "gate",
    ["ruff check", "ruff format --check", "mypy", "lint-imports", "bandit", "pip-audit", "pytest", "uv lock --check",
     "docker compose build", "deploy/smoke.sh", "--format cyclonedx"],
)  # fmt: skip
def test_every_gate_is_there(root, gate):
    assert gate in commands(root)


@pytest.mark.parametrize(
    "campaign",
    ["tests.faults.nemesis --minutes 30", "tests.bench.soak --minutes 60", "tests.fuzz --count 100000",
     "tests.bench.denial", "tests.bench.timing", "--outage-s"],
)  # fmt: skip
def test_what_takes_long_is_done_every_night(root, campaign):
    assert campaign in commands(root, "nightly.yml")


@pytest.mark.parametrize(
    "script", ["deploy/secrets.sh", "deploy/smoke.sh", "deploy/postgres/init.sh", "deploy/redis/render.sh", ".ci/run"]
)
def test_shellcheck_finds_nothing(root, script):
    result = run("shellcheck", root / script)
    assert (result.returncode, result.stdout) == (0, "")
