"""The demo, as a newcomer runs it: one command, then what it printed is pasted."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest

from neuronetz.admin.v1 import tenant_pb2, tenant_pb2_grpc
from tests.e2e.harness import Process, bearer, eventually, running

DEMO = Path(__file__).parents[2] / "deploy" / "demo.sh"


def paste(command: str) -> str:
    """What a shell prints for a command, as typed."""
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30, check=True)
    return done.stdout


def down(state: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([DEMO, "--state", state, "--down"], capture_output=True, text=True, timeout=120, check=False)


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture(scope="module")
def state(tmp_path_factory) -> Path:
    return Path(tmp_path_factory.mktemp("demo")) / "state"


@pytest.fixture(scope="module")
def demo(state) -> Iterator[dict[str, Any]]:
    with running(Process(str(DEMO), "--json", "--state", str(state))) as process:
        yield process.description
    assert down(state).returncode == 0


@pytest.mark.timeout(300)
def test_a_chat_in_the_openai_dialect_streams_events(demo):
    events = [line for line in paste(demo["curls"][0]).splitlines() if line.startswith("data: ")]
    assert events[-1] == "data: [DONE]"
    deltas = [json.loads(event.removeprefix("data: "))["choices"] for event in events[:-1]]
    assert "".join(choice["delta"].get("content") or "" for choices in deltas for choice in choices)


def test_a_chat_in_the_ollama_dialect_streams_records(demo):
    records = [json.loads(line) for line in paste(demo["curls"][1]).splitlines()]
    assert len(records) > 1
    assert [record["done"] for record in records] == [False] * (len(records) - 1) + [True]


def test_the_models_are_listed(demo):
    assert json.loads(paste(demo["curls"][2]))["data"]


def test_without_a_key_the_answer_is_401(demo):
    assert paste(demo["curls"][3]).split()[1] == "401"


def test_pulling_a_model_is_forbidden(demo):
    assert paste(demo["curls"][4]).split()[1] == "403"


def test_the_playground_is_served(demo):
    reply = httpx.get(demo["playground_url"], trust_env=False, follow_redirects=True)
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/html")


def test_every_plane_serves_metrics(demo):
    assert len(demo["metrics_urls"]) == 2
    for url in demo["metrics_urls"]:
        assert httpx.get(url, trust_env=False).status_code == 200


def test_the_tenant_may_use_every_model(demo):
    with grpc.insecure_channel(demo["admin_address"]) as channel:
        found = tenant_pb2_grpc.TenantServiceStub(channel).GetTenant(
            tenant_pb2.GetTenantRequest(tenant="demo"),
            metadata=(("authorization", f"Bearer {demo['admin_token']}"),),
            timeout=30,
        )
    assert found.tenant.grants.allow_all_models


def test_the_data_plane_logs_nothing_but_json(demo):
    log = Path(demo["logs"]["dataplane"])
    lines = eventually(lambda: log.read_text().splitlines(), what="a line in the log")
    for line in lines:
        assert isinstance(json.loads(line), dict)


def test_no_log_has_a_secret(demo):
    secrets = json.loads((Path(demo["state_dir"]) / "secrets.json").read_text()).values()
    for log in demo["logs"].values():
        text = Path(log).read_text()
        assert [secret for secret in (*secrets, demo["api_key"]) if secret in text] == []


def test_a_second_demo_says_that_one_is_running(demo, state):
    second = subprocess.run([DEMO, "--state", state], capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 1
    assert f"process {demo['pids']['up'][0]}" in second.stderr
    assert demo["gateway_urls"][0] in second.stderr


@pytest.mark.timeout(300)
def test_it_starts_again_in_seconds_keeps_earlier_keys_and_leaves_nothing_when_brought_down(tmp_path):
    state = tmp_path / "state"
    with running(Process(str(DEMO), "--json", "--state", str(state))) as first:
        key = first.description["api_key"]
    with running(Process(str(DEMO), "--json", "--state", str(state))) as second:
        # Beside the first start, which made everything, on the machine as it is now.
        assert second.started_in_s < 2 * first.started_in_s
        described = second.description
        for known in (key, described["api_key"]):
            reply = httpx.get(f"{described['gateway_urls'][0]}/v1/models", headers=bearer(known), trust_env=False)
            assert reply.status_code == 200
        assert down(state).returncode == 0
    assert not state.exists()
    eventually(lambda: all(is_gone(pid) for pids in described["pids"].values() for pid in pids), what="the end of all")
