"""`neuronetz-gateway doctor` against a running stack, in the environment of its control plane."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.harness import Gateway, eventually
from tests.e2e.test_cli import run

WANTED = {
    "settings",
    "secrets.pepper",
    "secrets.sealing-key",
    "secrets.admin-token",
    "secrets.dataplane-token",
    "tls",
    "redis.reachable",
    "redis.version",
    "redis.policy",
    "redis.append-only-file",
    "redis.latency",
    "redis.memory",
    "clocks.redis",
    "clocks.postgres",
    "state.fences",
    "data-planes",
    "postgres.reachable",
    "postgres.version",
    "postgres.role",
    "postgres.schema",
    "postgres.partitions",
    *(f"backends.{name}.{what}" for name in ("first", "second") for what in ("models", "exposure", "cloud")),
}
# What the users of the gateway may not ask, and what this stack does not have.
SKIPPED = {"redis.appendfsync", "secrets.files"}


@pytest.fixture
def environ(gateway: Gateway) -> dict[str, str]:
    """What a control plane of the stack was started with."""
    (pid, *_) = gateway.description["pids"]["controlplane"]
    return dict(psutil.Process(pid).environ())


def statuses(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    document: dict[str, Any] = json.loads(done.stdout)
    return {finding["name"]: finding["status"] for finding in document["findings"]}


def test_a_running_stack_is_well(gateway, shared_key, environ, tmp_path):
    def well() -> subprocess.CompletedProcess[str] | None:
        tried = run("doctor", "-o", "json", environ=environ, cwd=tmp_path)
        return tried if tried.returncode == 0 else None

    done = eventually(well, timeout_s=30, what="a clean bill of health")
    assert done is not None
    found = statuses(done)
    assert json.loads(done.stdout)["status"] == "ok"
    assert {name for name, status in found.items() if status == "ok"} == WANTED
    assert {name for name, status in found.items() if status == "skipped"} == SKIPPED


def test_no_secret_of_the_stack_is_in_what_people_and_programs_see(gateway, environ, tmp_path):
    secrets = json.loads((Path(gateway.description["state_dir"]) / "secrets.json").read_text()).values()

    for output in ("json", "yaml", "table"):
        done = run("doctor", "-o", output, environ=environ, cwd=tmp_path)
        assert "data-planes" in done.stdout
        assert not [secret for secret in secrets if secret in done.stdout + done.stderr]


def test_what_does_not_answer_is_found_and_the_rest_is_looked_at_all_the_same(gateway, shared_key, environ, tmp_path):
    environ |= {"DATABASE_URL": "postgres://gateway_control:pass-word@127.0.0.1:1/gateway"}

    done = run("doctor", "-o", "json", environ=environ, cwd=tmp_path)

    found = statuses(done)
    assert done.returncode == 8, done.stderr
    assert "pass-word" not in done.stdout
    assert (found["postgres.reachable"], found["postgres"], found["state.fences"]) == ("failed", "skipped", "ok")


def test_an_operator_elsewhere_sees_what_the_admin_api_says(gateway, shared_key, environ, tmp_path):
    known = {"PATH": environ["PATH"], "GATEWAY_ADMIN_ADDRESS": gateway.description["admin_address"]}

    done = run(
        "doctor", "-o", "json", environ=known | {"GATEWAY_ADMIN_TOKEN": environ["GATEWAY_ADMIN_TOKEN"]}, cwd=tmp_path
    )
    assert (done.returncode, statuses(done)["admin-api"]) == (0, "ok")

    refused = run("doctor", "-o", "json", environ=known | {"GATEWAY_ADMIN_TOKEN": "x" * 40}, cwd=tmp_path)
    assert (refused.returncode, statuses(refused)["admin-api"]) == (8, "failed")
    assert "UNAUTHENTICATED" in refused.stdout


def test_settings_that_the_environment_lacks_come_from_a_file(gateway, environ, tmp_path):
    file = tmp_path / "gateway.env"
    names = ("REDIS_URL", "DATABASE_URL", "GATEWAY_KEY_PEPPER", "GATEWAY_SEALING_KEY", "GATEWAY_ADMIN_TOKEN")
    file.write_text("".join(f"{name}={environ.pop(name)}\n" for name in names))
    file.chmod(0o600)

    assert run("doctor", environ=environ, cwd=tmp_path).returncode == 64
    done = run("doctor", "--env-file", str(file), "-o", "json", environ=environ, cwd=tmp_path)

    assert statuses(done)["settings"] == statuses(done)["secrets.files"] == statuses(done)["redis.reachable"] == "ok"
