"""The client against a mock that misbehaves in every way that it knows."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from controlplane.errors import UpstreamProbeError
from controlplane.ollama.client import MAX_SHOW_BYTES, OllamaClient, Target
from deploy.mock_ollama import MockOllama
from deploy.mock_ollama.bad_content import AnyBytes, Empty200, Gzip, HostileTags, InvalidJSON, Redirect, Status
from deploy.mock_ollama.faults import (
    CloseBeforeHeaders,
    HalfRecord,
    Hang,
    Raw,
    ResetAfterHeaders,
    ResetBeforeHeaders,
    Slow,
)
from deploy.mock_ollama.settings import Settings
from shared.backends import credential_header
from shared.redaction import Secret

# What has no end of its own is over by then, and no answer that drips either.
ENDED_WITHIN_S = 15.0
# Times as long as plain bytes may hostile ones keep the others waiting.
MOST = 8.0


def patience_s(problem: str) -> float:
    """How long an answer is waited for: not long where none comes, and as long as it takes where one does."""
    return 0.5 if problem == "timeout" else ENDED_WITHIN_S


def target_of(mock: MockOllama, credential: tuple[str, str] | None = None) -> Target:
    return Target(name=mock.name, url=mock.url, credential=credential)


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        (HostileTags(shape="many"), "too large"),
        (HostileTags(shape="many", size=1001), "too many models"),
        (HostileTags(shape="giant", size=2_000_000), "too large"),
        (HostileTags(shape="deep"), "not JSON"),
        (HostileTags(shape="not_json"), "not JSON"),
        (InvalidJSON(), "not JSON"),
        (Status(status=500), "status 500"),
        (Status(status=503), "status 503"),
        (Status(status=204), "status 204"),
        (Status(status=401), "unauthorized"),
        (Status(status=403), "unauthorized"),
        (Redirect(location="http://127.0.0.1:1/api/tags"), "redirect"),
        (Gzip(), "encoded reply"),
        (Gzip(hidden=True), "not JSON"),
        (Empty200(), "not JSON"),
        (Status(status=200, body="[]"), "not a JSON object"),
        (Status(status=200, body="{}"), "not a list of models"),
        (ResetBeforeHeaders(), "connection lost"),
        (CloseBeforeHeaders(), "broken reply"),
        (ResetAfterHeaders(), "connection lost"),
        (HalfRecord(), "broken reply"),
        (Hang(where="before_headers"), "timeout"),
        (Hang(where="after_headers"), "timeout"),
        (Slow(slice_bytes=1, slice_ms=200), "timeout"),
        (Raw(slices=("SSH-2.0-OpenSSH_9.2\r\n\r\n",)), "broken reply"),
    ],
    ids=repr,
)
async def test_a_bad_list_is_refused_in_our_own_words(fault, problem, mocks):
    mock = await mocks()
    mock.script(fault, path="/api/tags")
    started_s = time.monotonic()
    with pytest.raises(UpstreamProbeError) as caught:
        await OllamaClient().tags(target_of(mock), timeout_s=patience_s(problem))
    assert str(caught.value) == problem
    assert time.monotonic() - started_s < ENDED_WITHIN_S
    assert len((await OllamaClient().tags(target_of(mock))).models) == 4


@pytest.mark.parametrize(
    ("shape", "models", "skipped"),
    [("weird_names", 1, 15), ("duplicates", 1, 2), ("remote", 1, 1), ("wrong_types", 0, 5)],
)
async def test_of_a_hostile_list_only_usable_models_are_taken(shape, models, skipped, mocks):
    mock = await mocks()
    mock.script(HostileTags(shape=shape), path="/api/tags")
    found = await OllamaClient().tags(target_of(mock))
    assert (len(found.models), found.skipped) == (models, skipped)


async def test_a_server_that_is_not_there_is_refused():
    problems = {
        "http://127.0.0.1:1": "connection refused",
        "https://127.0.0.1:1": "connection refused",
        "http://[::1]:1": "connection refused",
        "http://no-such-host.invalid": "unknown host",
    }
    for url, problem in problems.items():
        with pytest.raises(UpstreamProbeError) as caught:
            await OllamaClient().tags(Target(name="a", url=url))
        assert str(caught.value) == problem


async def test_tls_with_a_server_that_speaks_none_is_refused(mocks):
    mock = await mocks()
    with pytest.raises(UpstreamProbeError) as caught:
        await OllamaClient().tags(Target(name="a", url=mock.url.replace("http://", "https://")), timeout_s=5)
    assert str(caught.value) in {"TLS failed", "timeout", "connection lost", "connection failed"}


async def test_a_question_carries_the_credential_and_nothing_of_the_environment(mocks, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    mock = await mocks(settings=Settings(token="opener"))
    with pytest.raises(UpstreamProbeError, match=r"^unauthorized$"):
        await OllamaClient().tags(target_of(mock))
    credential = credential_header(header="Authorization", scheme="Bearer", token=Secret("opener"))
    assert len((await OllamaClient().tags(target_of(mock, credential))).models) == 4
    headers = {name.lower(): value for name, value in mock.requests[-1].headers}
    assert headers == {
        "host": mock.url.removeprefix("http://"),
        "accept": "application/json",
        "accept-encoding": "identity",
        "user-agent": "neuronetz-gateway",
        "authorization": "Bearer opener",
    }
    assert "opener" not in repr(target_of(mock, credential))


async def test_a_model_is_described_with_what_requests_need_to_know(mocks):
    mock = await mocks()
    found = await OllamaClient().show(target_of(mock), "qwen3:8b")
    assert found.capabilities == ("completion", "tools", "thinking")
    assert (found.context_length, found.embedding_length) == (40960, 4096)
    assert found.template_bytes > 0


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        (Status(status=404), "status 404"),
        (Status(status=401), "unauthorized"),
        (Status(status=200, body='{"template":"' + "x" * MAX_SHOW_BYTES + '"}'), "too large"),
        (Status(status=200, body="[" * 100_000), "not JSON"),
        (Status(status=200, body='{"model_info":' * 20_000 + "1" + "}" * 20_000), "not JSON"),
        (Status(status=200, body='{"template":"\\ud800"}'), "not JSON"),
        (Status(status=200, body="[1]"), "not a JSON object"),
        (Redirect(location="http://127.0.0.1:1/api/show"), "redirect"),
        (Gzip(), "encoded reply"),
        (Gzip(hidden=True), "not JSON"),
        (Empty200(), "not JSON"),
        (HalfRecord(), "broken reply"),
        (ResetAfterHeaders(), "connection lost"),
        (Hang(), "timeout"),
        (Slow(slice_bytes=1, slice_ms=200), "timeout"),
        (AnyBytes(bodies=("WzFd",)), "not a JSON object"),
    ],
    ids=lambda value: repr(value)[:60],
)
async def test_a_model_that_is_not_described_is_a_problem_of_ours(fault, problem, mocks):
    mock = await mocks()
    mock.script(fault, path="/api/show")
    started_s = time.monotonic()
    with pytest.raises(UpstreamProbeError) as caught:
        await OllamaClient().show(target_of(mock), "qwen3:8b", timeout_s=patience_s(problem))
    assert str(caught.value) == problem
    assert time.monotonic() - started_s < ENDED_WITHIN_S


@pytest.mark.parametrize("number", ["1e300", "1e400", "9" * 4000])
async def test_an_answer_full_of_numbers_does_not_hold_up_the_others(number, mocks):
    mock = await mocks()
    head, tail = '{"capabilities":["vision",', "1]}"
    size = (MAX_SHOW_BYTES - 100) // (len(number) + 1)
    mock.script(Status(status=200, body=head + f"{number}," * size + tail), path="/api/show", times=None)
    client, plain = OllamaClient(), "[" + "[]," * (MAX_SHOW_BYTES // 3) + "1]"
    longest_s = 0.0

    async def ticking() -> None:
        nonlocal longest_s
        while True:
            before_s = time.process_time()
            await asyncio.sleep(0)
            longest_s = max(longest_s, time.process_time() - before_s)

    ratios = [MOST]
    while min(ratios) >= MOST and len(ratios) <= 3:
        longest_s = 0.0
        ticker = asyncio.create_task(ticking())
        found = await client.show(target_of(mock), "qwen3:8b", timeout_s=60)
        # What was read last has held up this very tick.
        await asyncio.sleep(0)
        ticker.cancel()
        assert found.capabilities == ("vision",)
        started_s = time.process_time()
        json.loads(plain)
        ratios.append(longest_s / (time.process_time() - started_s))
    # Beside a plain answer of this length, at its best, in time of the processor, whichever thread has it; msgspec
    # alone would take fifty times as long for the first.
    assert min(ratios) < MOST


async def test_cancelled_questions_leave_no_connection_behind(mocks):
    mock = await mocks()
    mock.script(Hang(), path="/api/tags", times=None)
    client = OllamaClient()
    results = await asyncio.gather(
        *(client.tags(target_of(mock), timeout_s=0.2) for _ in range(50)), return_exceptions=True
    )
    assert {str(result) for result in results} == {"timeout"}
    await mock.until(lambda it: it.stats()["connections_open"] == 0)
