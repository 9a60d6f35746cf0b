"""Metrics of a running gateway: one scrape for all workers, and no more series whatever clients send."""

from __future__ import annotations

import json
import random
import string
from pathlib import Path

import httpx

from tests.canaries import PROMPT
from tests.e2e.harness import bearer, eventually
from tests.e2e.observability.conftest import scraped, total

CHAT = {"model": "llama3.2", "messages": [{"role": "user", "content": PROMPT}]}


def test_one_scrape_is_the_sum_of_all_workers(watched):
    watched.tenant("counted")
    key = watched.key("counted")
    statuses = []
    for number in range(24):
        # A connection for each, so that both workers get some.
        reply = httpx.post(
            f"{watched.url}/api/chat", json=CHAT | {"stream": bool(number % 2)}, headers=bearer(key), trust_env=False
        )
        statuses.append(reply.status_code)
    assert statuses == [200] * 24
    data, control = watched.description["metrics_urls"]
    eventually(
        lambda: total(scraped(data), "gateway_requests_total", tenant="counted", status="200") == 24,
        what="24 requests in one scrape",
    )
    samples = scraped(data)
    known = {"tenant": "counted", "model": "llama3.2:latest"}
    assert total(samples, "gateway_workers") == 2
    assert total(samples, "gateway_requests_total", **known, status="200") == 24
    assert total(samples, "gateway_request_duration_seconds_count", **known) == 24
    assert total(samples, "gateway_tokens_total", **known, direction="completion") == 24 * 24
    assert total(samples, "gateway_time_to_first_token_seconds_count", model="llama3.2:latest") >= 24
    assert total(samples, "gateway_admission_redis_seconds_count") >= 24
    assert total(samples, "gateway_upstream_attempts_total", backend="first") >= 24
    assert total(samples, "gateway_ready") == 1
    assert 0 <= total(samples, "gateway_snapshot_age_seconds") < 30
    pids = {line["pid"] for line in request_lines(watched) if line.get("tenant") == "counted" and line["status"] == 200}
    assert len(pids) == 2, "both workers have answered"
    eventually(lambda: total(scraped(control), "gateway_usage_events_drained_total") >= 24, what="the drain")
    assert total(scraped(control), "gateway_ledger_write_seconds_count") > 0
    assert total(scraped(control), "gateway_backend_polled") == 2


def test_ten_thousand_strange_names_add_no_series(watched):
    """A9.3: models, paths, methods, keys and headers that clients make up."""
    url = watched.description["metrics_urls"][0]
    with httpx.Client(base_url=watched.url, timeout=20, trust_env=False) as http:
        attack(http, watched.first_key, 30)
        before = {(name, labels) for name, labels in scraped(url) if not name.endswith("_created")}
        attack(http, watched.first_key, 400)
    after = set(scraped(url))
    assert after - before == set()


def attack(http: httpx.Client, key: str, rounds: int) -> None:
    """Each round five requests that have never been seen before."""
    made = random.Random(5)

    def word() -> str:
        return "".join(made.choices(string.ascii_lowercase, k=12))

    for _ in range(rounds):
        http.post("/api/chat", json=CHAT | {"model": word()}, headers=bearer(key))
        http.get(f"/{word()}/{word()}", headers=bearer(key))
        http.get(f"/v1/models/{word()}", headers=bearer(key))
        http.get("/api/tags", headers=bearer(f"nz_{word()}{word()}"))
        http.request(word().upper(), "/api/chat", headers=bearer(key) | {f"x-{word()}": word()})


def request_lines(gateway) -> list[dict]:
    log = Path(gateway.description["logs"]["dataplane"]).read_text()
    # The last line may be one that is being written.
    complete = log.rpartition("\n")[0]
    lines = [json.loads(line) for line in complete.splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("event") == "request_ended"]


def test_each_request_leaves_one_line(watched):
    watched.tenant("lined")
    key = watched.key("lined")
    ids = []
    with httpx.Client(base_url=watched.url, timeout=20, trust_env=False, headers=bearer(key)) as http:
        ids.append(http.post("/api/chat", json=CHAT).headers["x-request-id"])
        ids.append(
            http.post("/v1/embeddings", json={"model": "nomic-embed-text", "input": PROMPT}).headers["x-request-id"]
        )
        ids.append(http.get("/v1/models").headers["x-request-id"])
        ids.append(http.post("/api/chat", json=CHAT | {"model": "nowhere"}).headers["x-request-id"])
        ids.append(http.post("/api/chat", content=b"{").headers["x-request-id"])
        ids.append(http.post("/api/pull", json={}).headers["x-request-id"])
        ids.append(http.get("/api/tags", headers=bearer("nz_wrong")).headers["x-request-id"])

    def lines() -> list[dict]:
        return [line for line in request_lines(watched) if line["request_id"] in ids]

    eventually(lambda: len(lines()) >= len(ids), what="a line per request")
    by_id = {line["request_id"]: line for line in lines()}
    assert len(lines()) == len(ids)
    said = [(by_id[one]["endpoint"], by_id[one]["status"], by_id[one]["outcome"]) for one in ids]
    assert said == [
        ("/api/chat", 200, "completed"),
        ("/v1/embeddings", 200, "completed"),
        ("/v1/models", 200, "completed"),
        ("/api/chat", 403, "refused"),
        ("/api/chat", 400, "refused"),
        ("blocked", 403, "refused"),
        ("/api/tags", 401, "refused"),
    ]
    assert {by_id[one].get("key_prefix") for one in ids[:-1]} == {key[:12]}
    assert by_id[ids[0]]["completion_tokens"] == 24
