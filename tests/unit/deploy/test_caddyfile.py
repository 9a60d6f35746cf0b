"""The Caddyfile as Caddy reads it. What it does to a stream is seen in tests/e2e/test_caddy.py."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.deploy.tools import run

ENVIRONMENT = {"GATEWAY_DOMAIN": "gateway.example", "ACME_EMAIL": "operator@gateway.example"}


@pytest.fixture(scope="module")
def adapted(root) -> dict[str, Any]:
    file = root / "deploy" / "caddy" / "Caddyfile"
    result = run("caddy", "adapt", "--config", file, "--adapter", "caddyfile", **ENVIRONMENT)
    assert result.returncode == 0, result.stderr
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def found(document: Any, name: str) -> list[Any]:
    """Every value under a name, wherever it stands."""
    if isinstance(document, list):
        return [value for item in document for value in found(item, name)]
    if isinstance(document, dict):
        below = [value for item in document.values() for value in found(item, name)]
        return [document[name], *below] if name in document else below
    return []


def test_caddy_accepts_it(root, tmp_path):
    file = root / "deploy" / "caddy" / "Caddyfile"
    environment = {**ENVIRONMENT, "HOME": str(tmp_path)}
    result = run("caddy", "validate", "--config", file, "--adapter", "caddyfile", **environment)
    assert result.returncode == 0, result.stderr
    assert '"level":"warn"' not in result.stderr
    assert run("caddy", "fmt", file).stdout == file.read_text()


def test_nobody_can_change_it_over_the_network(adapted):
    assert adapted["admin"] == {"disabled": True}


def test_streams_are_not_held_back(adapted):
    assert found(adapted, "flush_interval") == [-1]
    handlers = {handler for handler in found(adapted, "handler") if isinstance(handler, str)}
    assert "encode" not in handlers


def test_a_request_that_was_sent_is_never_sent_twice(adapted):
    [balancing] = found(adapted, "load_balancing")
    assert "retry_match" not in balancing, "without a rule Caddy repeats only what could not be connected, and GETs"
