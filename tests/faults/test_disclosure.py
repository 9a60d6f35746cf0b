"""A9.3: what clients send makes no series, however much and whatever it is."""

from __future__ import annotations

import re
import uuid

import httpx

from tests.e2e.accounts import assert_invariants
from tests.e2e.crowd import ask_all, chat
from tests.e2e.harness import bearer, eventually
from tests.faults.fleet import Fleet

# Each is a kind of request that clients can vary without end; a kind makes its series once.
VARIETY = 150


def test_no_path_model_or_key_of_a_client_makes_a_series(whole: Fleet):
    name = f"series-{uuid.uuid4().hex[:8]}"
    whole.gateway.tenant(name)
    key = whole.gateway.key(name)
    url = whole.gateway.urls[0]
    metrics = whole.gateway.description["metrics_urls"][0]

    def vary(client: httpx.Client, word: str) -> None:
        good = bearer(key)
        client.get(f"{url}/{word}")
        client.post(f"{url}/api/{word}", headers=good, json={})
        client.post(f"{url}/api/chat", headers=good, json=chat(model=word))
        client.get(f"{url}/v1/models/{word}", headers=good)
        client.post(f"{url}/api/chat", headers=bearer(f"nz_{word}"), json=chat())
        client.request(word.upper(), f"{url}/api/chat", headers=good)

    with httpx.Client(timeout=20, trust_env=False) as client:
        vary(client, "first")
        ask_all([url], key, [chat()])
        known = eventually(lambda: _series(client, metrics), what="metrics")
        words = [f"w{uuid.uuid4().hex[:12]}" for _ in range(VARIETY)]
        for word in words:
            vary(client, word)
        after = _series(client, metrics)
        text = client.get(metrics).text
    assert [one for one in sorted(after - known) if not _is_ours(one)] == []
    assert [word for word in words if word in text] == []
    assert key[:12] not in text
    assert_invariants(whole.gateway, whole.mocks)


def _is_ours(series: str) -> bool:
    """Series whose labels are words of ours may appear later: of a status or a backend that was not there before."""
    labels = re.findall(r'="([^"]*)"', series)
    return all(len(label) <= 40 and not re.search(r"w[0-9a-f]{12}", label) for label in labels)


def _series(client: httpx.Client, url: str) -> set[str]:
    lines = client.get(url).text.splitlines()
    return {line.rpartition(" ")[0] for line in lines if line and not line.startswith("#")}
