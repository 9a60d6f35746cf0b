"""What one tenant's requests do to a backend never shuts it for the others: its circuit breaker stays closed."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from dataplane.upstream.breaker import FAILURES
from tests.e2e.accounts import request_id_of
from tests.e2e.crowd import CHAT, Answer, ask_all, chat
from tests.e2e.harness import Gateway, MockOllama, eventually, running

pytestmark = pytest.mark.timeout(300)

REQUESTS = 2 * FAILURES
GOOD, POISON, MISSING, DOOMED = "good:1b", "poison:1b", "missing:1b", "doomed:1b"

# What a backend may answer to a prompt that it cannot stand, and what each of them is for the client.
POISONS: dict[str, tuple[dict[str, Any], int]] = {
    "400": ({"kind": "status", "status": 400}, 400),
    "401": ({"kind": "status", "status": 401}, 502),
    "403": ({"kind": "status", "status": 403}, 502),
    "404 of another kind": ({"kind": "status", "status": 404, "body": "no such page"}, 502),
    "413": ({"kind": "status", "status": 413}, 400),
    "422": ({"kind": "status", "status": 422}, 400),
    "429": ({"kind": "status", "status": 429}, 502),
    "500": ({"kind": "status", "status": 500}, 502),
    "busy": ({"kind": "busy"}, 502),
    "error line": ({"kind": "error_line_after_records", "records": 0}, 502),
    "error line later": ({"kind": "error_line_after_records", "records": 3}, 502),
    "invalid JSON": ({"kind": "invalid_json"}, 502),
    "huge record": ({"kind": "huge_record"}, 502),
    "half a record": ({"kind": "half_record", "records": 2}, 502),
    "reset within the reply": ({"kind": "reset_after_records", "records": 2}, 502),
    "silence": ({"kind": "hang"}, 504),
}


@pytest.fixture(scope="module")
def first() -> Iterator[MockOllama]:
    with running(MockOllama("first", "--models", f"{GOOD},{POISON},{MISSING}")) as mock:
        yield mock


@pytest.fixture(scope="module")
def doomed() -> Iterator[MockOllama]:
    with running(MockOllama("doomed", "--models", DOOMED)) as mock:
        yield mock


@pytest.fixture(scope="module")
def second() -> Iterator[MockOllama]:
    with running(MockOllama("second", "--models", f"{GOOD},{DOOMED}")) as mock:
        yield mock


@pytest.fixture(scope="module")
def gateway(first, doomed, second, tmp_path_factory) -> Iterator[Gateway]:
    # A model that is given up after a 404 must not come back with the next list.
    options = ("--set=OLLAMA_READ_TIMEOUT_S=3", "--set=MODEL_DISCOVERY_REFRESH_S=300")
    with running(Gateway(tmp_path_factory.mktemp("poison"), [first, doomed, second], *options)) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def keys(gateway) -> dict[str, str]:
    """A key of each of three tenants."""
    made = {}
    for tenant in ("poisonous", "accomplice", "innocent"):
        gateway.tenant(tenant)
        made[tenant] = gateway.key(tenant)
    gateway.wait_for_models(made["innocent"], GOOD, POISON, MISSING, DOOMED)
    return made


def ask(gateway: Gateway, api_key: str, model: str, times: int = 1) -> list[Answer]:
    return ask_all([gateway.url], api_key, [chat(number, model=model) for number in range(times)])


def assert_answers(gateway: Gateway, api_key: str, model: str, mock: MockOllama) -> None:
    """This backend answers the next request."""
    [answer] = ask(gateway, api_key, model)
    assert answer.status == 200
    assert [request_id_of(request) for request in mock.requests(CHAT)][-1] == answer.request_id


def _await_requests(mock: MockOllama, count: int) -> None:
    eventually(lambda: len(mock.requests(CHAT)) == count, what=f"{count} requests upstream")


@pytest.mark.parametrize("name", POISONS)
def test_a_tenant_whose_requests_all_fail_shuts_nobody_out(name, gateway, keys, first):
    fault, status = POISONS[name]
    first.reset()
    first.script({"match": {"path": CHAT, "model": POISON}, "times": None, "fault": fault})
    answers = ask(gateway, keys["poisonous"], POISON, REQUESTS)
    assert [answer.status for answer in answers] == [status] * REQUESTS
    assert len(first.requests(CHAT)) == REQUESTS
    assert_answers(gateway, keys["innocent"], GOOD, first)


def test_a_model_that_is_missing_is_forgotten_and_the_backend_is_not(gateway, keys, first):
    first.reset()
    first.script(
        {
            "match": {"path": CHAT, "model": MISSING},
            "times": None,
            "fault": {"kind": "status", "status": 404, "body": f'{{"error":"model \'{MISSING}\' not found"}}'},
        }
    )
    for _ in range(REQUESTS):
        [answer] = ask(gateway, keys["poisonous"], MISSING)
        assert answer.status == 403
    assert len(first.requests(CHAT)) == 1
    assert_answers(gateway, keys["innocent"], GOOD, first)


def test_a_tenant_that_always_leaves_shuts_nobody_out(gateway, keys, first):
    first.reset()
    first.script({"match": {"path": CHAT, "model": POISON}, "times": None, "fault": {"kind": "hang"}})
    address = urlsplit(gateway.url)
    body = json.dumps(chat(model=POISON)).encode()
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {keys['poisonous']}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    for number in range(1, REQUESTS + 1):
        with socket.create_connection((address.hostname, address.port), timeout=30) as client:
            client.sendall(head.encode() + body)
            _await_requests(first, number)
        eventually(lambda: first.stats()["in_flight"] == 0, what="the end of the request upstream")
    assert_answers(gateway, keys["innocent"], GOOD, first)


def test_what_two_tenants_have_seen_moves_everybody_to_the_next_backend_without_an_error(gateway, keys, doomed, second):
    doomed.script({"match": {"path": CHAT}, "times": None, "fault": {"kind": "status", "status": 500}})
    second.reset()
    for tenant in ("poisonous", "accomplice", "innocent"):
        assert [answer.status for answer in ask(gateway, keys[tenant], DOOMED, REQUESTS)] == [200] * REQUESTS
    assert len(second.requests(CHAT)) == 3 * REQUESTS
    asked = {request_id_of(request) for request in doomed.requests(CHAT)}
    [answer] = ask(gateway, keys["innocent"], DOOMED)
    assert answer.status == 200
    assert answer.request_id not in asked
    assert len(doomed.requests(CHAT)) == len(asked) <= 2 * REQUESTS
