"""The command line against a running gateway: tenant, key, request, revocation, and the migration of a database."""

import base64
import json
import os
import secrets
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.harness import bearer

PROGRAM = Path(sys.executable).with_name("neuronetz-gateway")
TIMEOUT_S = 60.0


def run(*arguments: str, environ: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """One command in a process of its own, from a folder that is not the checkout."""
    return subprocess.run(
        [PROGRAM, *arguments],
        env=environ,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


@pytest.fixture
def typed(gateway, tmp_path):
    """Types a command and answers its JSON document."""
    environ = {
        "PATH": os.environ["PATH"],
        "GATEWAY_ADMIN_ADDRESS": gateway.description["admin_address"],
        "GATEWAY_ADMIN_TOKEN": gateway.description["admin_token"],
    }

    def call(*arguments: str, code: int = 0) -> Any:
        done = run(*arguments, "--output", "json", environ=environ, cwd=tmp_path)
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout if code == 0 else done.stderr)

    return call


@pytest.fixture
def acme(typed) -> str:
    name = f"acme-{uuid.uuid4().hex[:8]}"
    typed("create-tenant", "--name", name, "--rpm", "120", "--tpm", "200000", "--concurrent", "8", "--allow-all-models")
    return name


def test_key_that_was_created_by_command_works_until_it_is_revoked(gateway, typed, acme):
    key = typed("create-key", "--tenant", acme, "--name", "prod-server-1")
    listed = typed("list-keys", "--tenant", acme)["keys"]

    def listing() -> int:
        return httpx.get(f"{gateway.url}/api/tags", headers=bearer(key["api_key"]), trust_env=False).status_code

    assert key["prefix"] == key["api_key"][:12]
    assert [row["prefix"] for row in listed] == [key["prefix"]]
    gateway.wait_for_models(key["api_key"], "llama3.2:latest")
    assert listing() == 200

    typed("revoke-key", "--prefix", key["prefix"], "--yes")

    assert listing() == 401
    assert typed("list-keys", "--tenant", acme)["keys"] == []


def test_suspended_tenant_is_refused_and_resumed(gateway, typed, acme):
    key = typed("create-key", "--tenant", acme, "--name", "k")["api_key"]

    def listing() -> int:
        return httpx.get(f"{gateway.url}/v1/models", headers=bearer(key), trust_env=False).status_code

    assert typed("suspend-tenant", "--tenant", acme, "--yes")["tenant"]["status"] == "TENANT_STATUS_SUSPENDED"
    assert listing() == 401
    typed("resume-tenant", "--tenant", acme)
    assert listing() != 401


def test_limits_and_grants_are_kept_as_typed(typed, acme):
    typed("update-tenant", acme, "--budget-day", "0", "--no-allow-all-models", "--allowed-models", "qwen3:8b,gemma3:4b")
    typed("update-tenant", acme, "--clear", "tpm")
    tenant = typed("get-tenant", acme)["tenant"]

    assert tenant["limits"] == {"rpm": 120, "concurrent": 8, "budget_day": 0}
    assert tenant["grants"]["allow_all_models"] is False
    assert sorted(tenant["grants"]["allowed_models"]["names"]) == ["gemma3:4b", "qwen3:8b"]


def test_backends_and_models_are_listed(typed):
    backends = typed("list-backends")["backends"]
    probes = typed("probe-ollama")["results"]

    assert [backend["name"] for backend in backends] == ["first", "second"]
    assert all(probe["ok"] for probe in probes)
    assert typed("list-models")["union_count"] > 0


@pytest.mark.parametrize(
    ("arguments", "code", "status"),
    [
        (("get-tenant", "nobody-has-this-name"), 3, "NOT_FOUND"),
        (("create-tenant", "--name", "Not A Name"), 2, "INVALID_ARGUMENT"),
        (("list-keys", "--token", "x" * 40), 5, "UNAUTHENTICATED"),
    ],
)
def test_failures_have_their_exit_codes(typed, arguments, code, status):
    assert typed(*arguments, code=code)["error"]["code"] == status


def test_name_that_is_taken_has_its_exit_code(typed, acme):
    assert typed("create-tenant", "--name", acme, code=4)["error"]["code"] == "ALREADY_EXISTS"


def test_migrate_brings_an_empty_database_up_to_date_and_may_run_again(postgres, tmp_path):
    environ = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": postgres.dsn_of("gateway"),
        "REDIS_URL": "redis://127.0.0.1:6379",
        "GATEWAY_KEY_PEPPER": secrets.token_urlsafe(48),
        "GATEWAY_SEALING_KEY": base64.b64encode(secrets.token_bytes(32)).decode(),
        "GATEWAY_ADMIN_TOKEN": secrets.token_urlsafe(48),
    }
    for _ in range(2):
        done = run("migrate", "--output", "json", environ=environ, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == {"migrated": True}

    away = run("migrate", environ=environ | {"DATABASE_URL": "postgres://u:p@127.0.0.1:1/gateway"}, cwd=tmp_path)
    assert away.returncode == 6
    assert away.stderr.count("\n") == 1
