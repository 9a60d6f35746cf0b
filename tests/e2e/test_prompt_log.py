"""Prompts are kept only where somebody has asked for it: a tenant for all its keys, or a key for itself."""

from __future__ import annotations

import uuid

from tests.e2e.crowd import ask_all, chat
from tests.e2e.harness import eventually


def test_prompts_are_off_unless_the_tenant_or_the_key_asks_for_them(fleet):
    name = f"log-{uuid.uuid4().hex[:8]}"
    fleet.tenant(name)
    fleet.tenant(f"{name}-kept", prompt_log_days=3)
    keys = {
        "silent": fleet.key(name),
        "own": fleet.key(name, prompt_log=True, prompt_log_retention_days=5),
        "tenants": fleet.key(f"{name}-kept"),
        "both": fleet.key(f"{name}-kept", prompt_log=True, prompt_log_retention_days=7),
    }
    answers = {}
    for kind, key in keys.items():
        fleet.wait_for_models(key, "llama3.2:latest")
        [answers[kind]] = ask_all(fleet.urls[:1], key, [chat(text=f"canary of {kind} in {name}")])
    assert {answer.status for answer in answers.values()} == {200}

    query = (
        "SELECT event_id, prompt, reply, expires_on - day AS days FROM gateway.prompt_log "
        "WHERE event_id = ANY($1::text[])"
    )
    ids = [answer.request_id for answer in answers.values()]
    eventually(lambda: len(fleet.rows(query, ids)) == 3, timeout_s=20, what="the prompts")
    found = {row["event_id"]: row for row in fleet.rows(query, ids)}
    assert answers["silent"].request_id not in found
    for kind, days in (("own", 5), ("tenants", 3), ("both", 7)):
        row = found[answers[kind].request_id]
        assert f"canary of {kind} in {name}" in row["prompt"]
        assert row["reply"] == answers[kind].json["message"]["content"]
        assert row["days"] == days
