"""What clients see of their limits: headers with every reply, refusals that name the limit, errors of the SDKs."""

from __future__ import annotations

import re
import uuid
from typing import Any

import httpx
import ollama
import openai
import pytest

from tests.canaries import PROMPT
from tests.e2e.accounts import assert_invariants, budget_of, scope_ids
from tests.e2e.crowd import ask_all, chat
from tests.e2e.harness import bearer, eventually

MODEL = "llama3.2"
RATES = [f"x-ratelimit-{what}-{of}" for of in ("requests", "tokens") for what in ("limit", "remaining", "reset")]


@pytest.fixture
def tenant(fleet, fleet_mock) -> str:
    fleet_mock.reset()
    name = f"limits-{uuid.uuid4().hex[:8]}"
    fleet.tenant(name)
    return name


def post(url: str, key: str, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(url, json=body, headers=bearer(key), timeout=20, trust_env=False)


def openai_body(**more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}], **more}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
def test_every_reply_says_what_is_left(fleet, tenant, path, stream):
    key = fleet.limited_key(tenant, rpm=10, tpm=5000)
    remaining = []
    for _ in range(3):
        reply = post(fleet.urls[0] + path, key, openai_body(stream=stream, max_tokens=16, options={"num_predict": 16}))
        assert reply.status_code == 200
        assert [name for name in RATES if name not in reply.headers] == []
        assert reply.headers["x-ratelimit-limit-requests"] == "10"
        assert reply.headers["x-ratelimit-limit-tokens"] == "5000"
        assert re.fullmatch(r"(60|5\d)s", reply.headers["x-ratelimit-reset-requests"])
        remaining.append(int(reply.headers["x-ratelimit-remaining-requests"]))
        assert 4000 < int(reply.headers["x-ratelimit-remaining-tokens"]) < 5000
    assert remaining == [9, 8, 7]


def test_the_scope_with_less_left_is_told(fleet, tenant):
    fleet.update_tenant(tenant, rpm=5)
    generous, narrow = fleet.limited_key(tenant, rpm=100), fleet.limited_key(tenant, rpm=2)
    assert post(f"{fleet.urls[0]}/api/chat", generous, chat()).headers["x-ratelimit-limit-requests"] == "5"
    assert post(f"{fleet.urls[0]}/api/chat", narrow, chat()).headers["x-ratelimit-limit-requests"] == "2"


@pytest.mark.parametrize(
    ("limits", "code", "message"),
    [
        ({"rpm": 1}, "requests_limit_exceeded", "too many requests per minute"),
        ({"tpm": 40}, "tokens_limit_exceeded", "too many tokens per minute"),
    ],
)
def test_a_refusal_names_its_limit_in_both_dialects_and_may_be_tried_again(fleet, tenant, limits, code, message):
    key = fleet.limited_key(tenant, **limits)
    native = openai_compatible = None
    for _ in range(2):
        native = post(f"{fleet.urls[0]}/api/chat", key, chat(num_predict=36))
        openai_compatible = post(f"{fleet.urls[1]}/v1/chat/completions", key, openai_body(max_tokens=36))
    assert native is not None
    assert openai_compatible is not None
    assert (native.status_code, openai_compatible.status_code) == (429, 429)
    assert native.json() == {"error": message, "code": code}
    assert openai_compatible.json() == {
        "error": {"message": message, "type": "rate_limit_error", "param": None, "code": code}
    }
    for reply in (native, openai_compatible):
        assert 1 <= int(reply.headers["retry-after"]) <= 61
        assert "x-should-retry" not in reply.headers
        assert "x-ratelimit-limit-requests" in reply.headers


def test_a_prompt_that_alone_is_too_long_for_a_minute_is_not_to_be_tried_again(fleet, tenant):
    key = fleet.limited_key(tenant, tpm=100)
    body = openai_body(messages=[{"role": "user", "content": "x" * 500}])
    reply = post(f"{fleet.urls[0]}/v1/chat/completions", key, body)
    assert reply.status_code == 429
    assert reply.headers["x-should-retry"] == "false"
    assert reply.json()["error"]["message"] == "too many tokens per minute: the prompt alone is more than the limit"


def test_the_output_is_lowered_to_what_a_minute_could_ever_admit_and_the_reply_says_so(fleet, fleet_mock, tenant):
    key = fleet.limited_key(tenant, tpm=100)
    reply = post(f"{fleet.urls[0]}/api/chat", key, chat(num_predict=1000))
    assert reply.status_code == 200
    granted = int(reply.headers["x-gateway-num-predict"])
    assert 90 < granted < 100
    assert fleet_mock.requests()[-1]["json"]["options"]["num_predict"] == granted


@pytest.mark.parametrize("budget", ["budget_day", "budget_month", "budget_total"])
def test_the_last_tokens_of_a_budget_are_usable_and_then_it_is_exhausted(fleet, fleet_mock, tenant, budget):
    fleet_mock.settings(tokens=5000, tokens_per_record=50)
    key = fleet.key(tenant)
    ids = scope_ids(fleet, tenant, key)
    first = post(f"{fleet.urls[0]}/api/chat", key, chat(num_predict=100))
    assert first.status_code == 200

    def reserved_once() -> bool:
        return budget_of(fleet, "tenant", ids["tenant"]).reserved == 0

    eventually(reserved_once, what="the settlement")
    used = budget_of(fleet, "tenant", ids["tenant"]).used
    # Room for the bound of a prompt (its bytes, template and messages) and a little output.
    room, granted = 700, 0
    fleet.update_tenant(tenant, **{budget: used + room})
    answers: list[httpx.Response] = []
    while not answers or answers[-1].status_code == 200:
        answers.append(post(f"{fleet.urls[0]}/v1/chat/completions", key, openai_body(max_tokens=1000)))
        granted = granted or int(answers[0].headers["x-gateway-num-predict"])
        assert len(answers) < 10
    assert 16 <= granted < room
    refused = answers[-1]
    assert refused.json()["error"]["type"] == refused.json()["error"]["code"] == "insufficient_quota"
    assert "exhausted" in refused.json()["error"]["message"]
    assert refused.headers["x-should-retry"] == "false"
    assert 1 <= int(refused.headers["retry-after"]) <= 32 * 86_400
    eventually(reserved_once, what="the settlements")
    assert budget_of(fleet, "tenant", ids["tenant"]).used <= used + room
    fleet.update_tenant(tenant, **{budget: used + room + 10_000})
    eventually(lambda: post(f"{fleet.urls[0]}/api/chat", key, chat(num_predict=16)).status_code == 200, timeout_s=15)


def test_the_openai_sdk_gives_up_on_an_exhausted_budget_at_once(fleet, fleet_mock, tenant):
    key = fleet.limited_key(tenant, budget_total=10)
    with (
        openai.OpenAI(base_url=f"{fleet.urls[0]}/v1", api_key=key, max_retries=5) as client,
        pytest.raises(openai.RateLimitError) as refusal,
    ):
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": PROMPT}])
    assert refusal.value.code == "insufficient_quota"
    assert fleet_mock.requests() == []
    query = (
        "SELECT coalesce(sum(occurrences), 0)::int AS times FROM gateway.audit_log "
        "WHERE refusal = 'budget_total' AND tenant_id = $1"
    )
    ids = scope_ids(fleet, tenant, key)
    eventually(lambda: fleet.rows(query, uuid.UUID(ids["tenant"]))[0]["times"] == 1, timeout_s=15, what="its row")


def test_the_ollama_sdk_reads_the_refusal(fleet, tenant, request):
    key = fleet.limited_key(tenant, rpm=1)
    client = ollama.Client(host=fleet.urls[0], headers=bearer(key))
    request.addfinalizer(client._client.close)
    message = {"role": "user", "content": PROMPT}
    assert client.chat(model=MODEL, messages=[message]).message.content
    with pytest.raises(ollama.ResponseError) as refusal:
        client.chat(model=MODEL, messages=[message])
    assert refusal.value.status_code == 429
    assert "too many requests per minute" in refusal.value.error


def test_embeddings_are_metered_and_reserve_only_their_input(fleet, fleet_mock, tenant):
    key = fleet.limited_key(tenant, budget_total=3000)
    body = {"model": "nomic-embed-text", "input": ["one text", "another text"]}
    answers = ask_all(fleet.urls, key, [body] * 3, path="/api/embed")
    assert {answer.status for answer in answers} <= {200, 403}
    if {answer.status for answer in answers} == {200}:
        ids = scope_ids(fleet, tenant, key)
        eventually(lambda: budget_of(fleet, "key", ids["key"]).used > 0, what="the charge")
    assert_invariants(fleet, [fleet_mock], answers)


def test_a_limit_that_is_lowered_or_raised_holds_at_once_and_touches_no_counter(fleet, fleet_mock, tenant):
    key = fleet.limited_key(tenant, budget_total=1_000_000)
    ids = scope_ids(fleet, tenant, key)
    assert {answer.status for answer in ask_all(fleet.urls, key, [chat(num_predict=16)] * 4)} == {200}
    eventually(lambda: budget_of(fleet, "key", ids["key"]).reserved == 0, what="the settlements")
    before = budget_of(fleet, "key", ids["key"])
    fleet.update_key(key, budget_total=before.used)
    assert {answer.status for answer in ask_all(fleet.urls, key, [chat(num_predict=16)] * 4)} == {429}
    fleet.update_key(key, budget_total=1_000_000)
    assert budget_of(fleet, "key", ids["key"]) == before
    eventually(
        lambda: {one.status for one in ask_all(fleet.urls, key, [chat(num_predict=16)] * 4)} == {200}, timeout_s=2
    )
    assert_invariants(fleet, [fleet_mock])
