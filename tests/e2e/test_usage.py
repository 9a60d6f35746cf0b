"""What operators see of usage, from the request of a client to the correction, over the command line."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.harness import bearer, eventually

PROGRAM = Path(sys.executable).with_name("neuronetz-gateway")
TIMEOUT_S = 60.0
PROMPT_TOKENS_AT_LEAST = 1
REPLY_TOKENS = 24


@pytest.fixture
def environ(gateway) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "GATEWAY_ADMIN_ADDRESS": gateway.description["admin_address"],
        "GATEWAY_ADMIN_TOKEN": gateway.description["admin_token"],
    }


@pytest.fixture
def typed(environ, tmp_path):
    """Types a command and answers its JSON document."""

    def call(*arguments: str, code: int = 0) -> Any:
        command = [str(PROGRAM), *arguments, "--output", "json"]
        done = subprocess.run(
            command, env=environ, cwd=tmp_path, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout if code == 0 else done.stderr)

    return call


class Tail:
    """A running ``tail-audit`` and what it has printed."""

    def __init__(self, environ: dict[str, str], *arguments: str) -> None:
        self._process = subprocess.Popen(
            [PROGRAM, "tail-audit", *arguments, "--output", "json"], env=environ, stdout=subprocess.PIPE, text=True
        )
        self.lines: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        self.lines.extend(json.loads(line) for line in self._process.stdout)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=30)
        self._reader.join(timeout=30)
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture
def account(gateway) -> tuple[str, str]:
    """A tenant with budgets, and a key of it."""
    name = f"books-{uuid.uuid4().hex[:8]}"
    gateway.tenant(name, budget_day=1_000_000, budget_month=20_000_000)
    key = gateway.key(name, "prod")
    gateway.wait_for_models(key, "llama3.2:latest")
    return name, key


@pytest.fixture
def tail(environ, account) -> Iterator[Tail]:
    running = Tail(environ, "--tenant", account[0])
    yield running
    running.stop()


def ask(gateway, key: str, content: str = "How are you?") -> str:
    """One completed request; its id."""
    body = {"model": "llama3.2", "messages": [{"role": "user", "content": content}], "stream": False}
    reply = httpx.post(f"{gateway.url}/api/chat", json=body, headers=bearer(key), timeout=20, trust_env=False)
    assert reply.status_code == 200, reply.text
    return reply.headers["x-request-id"]


def charged(row: dict[str, Any]) -> int:
    return int(row.get("total_tokens", 0))


def test_requests_appear_in_usage_budgets_audit_and_tail_and_a_correction_moves_them_all(
    gateway, mock, typed, account, tail
):
    tenant, key = account
    sent: list[str] = []

    def tail_has_begun() -> bool:
        sent.append(ask(gateway, key))
        return bool(tail.lines)

    eventually(tail_has_begun, timeout_s=30, what="the tail")
    sent += [ask(gateway, key) for _ in range(3)]

    def audited() -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = typed("query-audit", "--tenant", tenant, "--model", "llama3.2:latest")["rows"]
        return rows if {row["request_id"] for row in rows} == set(sent) else []

    chats = eventually(audited, what="audit rows")
    tokens = sum(charged(row) for row in chats)
    assert [row["created_at"] for row in chats] == sorted((row["created_at"] for row in chats), reverse=True)
    assert {(row["outcome"], row["provenance"], row["key"]) for row in chats} == {
        ("OUTCOME_COMPLETED", "PROVENANCE_REPORTED", key[:12])
    }
    assert tokens >= len(sent) * (PROMPT_TOKENS_AT_LEAST + REPLY_TOKENS)
    assert [row["request_id"] for row in typed("query-audit", "--request-id", sent[0])["rows"]] == [sent[0]]

    usage = typed("get-usage", "--tenant", tenant, "--by", "model")
    (chat,) = [row for row in usage["rows"] if charged(row)]
    assert (chat["requests"], charged(chat), chat["reported_tokens"]) == (len(sent), tokens, tokens)

    budgets = typed("get-budgets", "--tenant", tenant)
    assert budgets["counters"] == "COUNTERS_LIVE"
    today = f"{dt.datetime.now(dt.UTC):%Y%m%d}"
    rows = {(row.get("key", ""), row["period"]): row for row in budgets["budgets"]}
    for scope in ("", key[:12]):
        day = rows[scope, today]
        assert (day["used"], day["ledger_used"], day["reserved"]) == (tokens, tokens, 0)
        assert (day["limit"], day["limit_source"], day["remaining"]) == (
            1_000_000, "LIMIT_SOURCE_TENANT", 1_000_000 - tokens,
        )  # fmt: skip
        assert rows[scope, "total"]["limit_source"] == "LIMIT_SOURCE_NONE"

    corrected = typed(
        "adjust-budget", "--tenant", tenant, "--key", key[:12], "--tokens", "-40", "--reason", "failed batch"
    )
    assert corrected["recorded"] is True
    assert {row["used"] for row in corrected["counters"]} == {tokens - 40}
    after = typed("get-budgets", "--tenant", tenant, "--key", key[:12])["budgets"]
    assert {(row["used"], row["ledger_used"]) for row in after} == {(tokens - 40, tokens - 40)}
    total = typed("get-usage", "--tenant", tenant)["total"]
    assert (charged(total), total["corrected_tokens"]) == (tokens - 40, -40)
    (entry,) = typed("query-audit", "--tenant", tenant, "--outcome", "correction")["rows"]
    assert (entry["total_tokens"], entry["reason"], entry["operator"]) == (-40, "failed batch", "admin")

    eventually(lambda: tail.lines[-1]["row"]["outcome"] == "OUTCOME_CORRECTION", what="the correction in the tail")
    shown = [line["row"]["event_id"] for line in tail.lines]
    assert len(set(shown)) == len(shown)
    assert {line["row"]["tenant"] for line in tail.lines} == {tenant}


def test_a_correction_that_cannot_be_is_refused_on_the_command_line(typed, account):
    tenant, _ = account
    assert typed("adjust-budget", "--tenant", tenant, "--tokens", "-1", "--reason", "r", code=4)
    assert typed("adjust-budget", "--tenant", tenant, "--tokens", "0", "--reason", "r", code=2)
    assert typed("get-usage", "--tenant", tenant, "--from", "soon", code=2)
    assert typed("get-budgets", "--tenant", "nobody", code=3)
