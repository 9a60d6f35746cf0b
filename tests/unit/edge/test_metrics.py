"""Metrics of the data plane, as somebody who scrapes them sees them."""

import asyncio
import os
import subprocess
import sys
import urllib.request
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from dataplane.figures import MAX_SERIES, OTHER, Counter, Histogram, Merge, Reading, families, merged
from dataplane.gathering import Workers, answering
from dataplane.metrics import Metrics, operation_of
from shared import scrape
from shared.records import UsageEvent
from tests.e2e.harness import eventually
from tests.unit.stages.principals import ARRIVAL, PRINCIPAL

EVENT = UsageEvent(
    event_id="e",
    request_id="r",
    tenant_id=PRINCIPAL.tenant_id,
    key_id=PRINCIPAL.key_id,
    day="20261121",
    created_at_ms=ARRIVAL.created_at_ms,
    dialect="ollama",
    endpoint="/api/chat",
    outcome="completed",
    status=200,
    model="llama3:latest",
    prompt_tokens=3,
    completion_tokens=5,
    ttft_ms=100,
)
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples_of(metrics: Metrics) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families(metrics.figures())
        for sample in family.samples
    }


def ended(metrics: Metrics, **fields: Any) -> None:
    told: dict[str, Any] = {
        "arrival": ARRIVAL,
        "principal": PRINCIPAL,
        "event": EVENT,
        "status": 200,
        "duration_s": 0.5,
    }
    metrics.request_ended(**(told | fields))


def test_requests_tokens_and_durations_are_counted():
    metrics = Metrics()
    ended(metrics)
    metrics.read("gateway_ready", "ready", lambda: 1.0)
    metrics.anomaly_seen("prompt_count")
    metrics.admission_waited(0.0004)
    seen = samples_of(metrics)
    labels = (("model", "llama3:latest"), ("tenant", "acme"))
    assert seen["gateway_requests_total", (labels[0], ("status", "200"), labels[1])] == 1
    assert seen["gateway_tokens_total", (("direction", "prompt"), *labels)] == 3
    assert seen["gateway_tokens_total", (("direction", "completion"), *labels)] == 5
    assert seen["gateway_request_duration_seconds_count", labels] == 1
    assert seen["gateway_request_duration_seconds_bucket", (("le", "0.25"), *labels)] == 0
    assert seen["gateway_request_duration_seconds_bucket", (("le", "0.5"), *labels)] == 1
    assert seen["gateway_time_to_first_token_seconds_sum", labels[:1]] == pytest.approx(0.1)
    assert seen["gateway_tokens_per_second_sum", labels[:1]] == pytest.approx(4 / 0.4)
    assert seen["gateway_admission_redis_seconds_bucket", (("le", "0.0005"),)] == 1
    assert seen["gateway_ready", ()] == 1
    assert seen["gateway_usage_anomalies_total", (("kind", "prompt_count"),)] == 1


def test_a_request_of_nobody_has_no_tenant_and_one_without_a_model_no_model():
    metrics = Metrics()
    ended(metrics, principal=None, event=None, status=401)
    ended(metrics, event=msgspec.structs.replace(EVENT, model="", ttft_ms=None), status=429)
    seen = samples_of(metrics)
    assert seen["gateway_requests_total", (("model", "other"), ("status", "401"), ("tenant", "none"))] == 1
    assert seen["gateway_requests_total", (("model", "other"), ("status", "429"), ("tenant", "acme"))] == 1
    assert not [name for name, _ in seen if name.startswith("gateway_time_to_first_token_seconds")]


def test_the_conventions_of_opentelemetry_have_their_own_names_and_labels():
    metrics = Metrics(gen_ai=True)
    ended(metrics)
    ended(metrics, status=502)
    figures = {figure.name: figure for figure in metrics.figures()}
    assert {name for name in figures if "." in name} == {
        "gen_ai.server.request.duration",
        "gen_ai.server.time_to_first_token",
        "gen_ai.server.time_per_output_token",
        "gen_ai.client.token.usage",
    }
    durations = dict(figures["gen_ai.server.request.duration"].series)
    assert set(durations) == {("chat", "ollama", "llama3:latest", ""), ("chat", "ollama", "llama3:latest", "502")}
    [(_, row)] = figures["gen_ai.server.time_per_output_token"].series
    assert row[-1] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("endpoint", "operation"),
    [
        ("/api/chat", "chat"),
        ("/v1/chat/completions", "chat"),
        ("/v1/completions", "text_completion"),
        ("/api/generate", "text_completion"),
        ("/api/embed", "embeddings"),
        ("/v1/embeddings", "embeddings"),
    ],
)
def test_every_endpoint_has_the_name_of_its_operation(endpoint, operation):
    assert operation_of(endpoint) == operation


def test_more_label_sets_than_an_instrument_may_have_are_counted_together():
    counter, histogram = Counter("c", "c", ("a", "b")), Histogram("h", "h", ("a", "b"), bounds=(1.0,))
    for number in range(MAX_SERIES + 50):
        counter.add((str(number), "x"))
        histogram.observe(0.5, (str(number), "x"))
    for instrument in (counter, histogram):
        series = dict(instrument.figure().series)
        assert len(series) == MAX_SERIES + 1
        assert series[OTHER, OTHER][0] == 50


def test_workers_are_added_up_and_their_gauges_as_each_gauge_says():
    def worker(value: float):
        counter, histogram = Counter("c", "c", ("l",)), Histogram("h", "h", bounds=(1.0, 2.0))
        counter.add(("x",), value)
        counter.add((str(value),))
        histogram.observe(value)
        merges: tuple[Merge, ...] = ("sum", "min", "max")
        gauges = [Reading(merge, "g", lambda: value, merge=merge) for merge in merges]
        return [counter.figure(), histogram.figure(), *(gauge.figure() for gauge in gauges)]

    both = {figure.name: dict(figure.series) for figure in merged([worker(1.5), worker(3.0)])}
    assert both["c"] == {("x",): [4.5], ("1.5",): [1], ("3.0",): [1]}
    assert both["h"] == {(): [0, 1, 1, 4.5]}
    assert [both[name][()] for name in ("sum", "min", "max")] == [[4.5], [1.5], [3.0]]


WORKER = """
import asyncio, sys
from dataplane.gathering import answering
from dataplane.metrics import Metrics
async def main():
    metrics = Metrics()
    metrics.anomaly_seen("prompt_count")
    metrics.read("gateway_requests_in_flight", "now", lambda: 1)
    async with answering(sys.argv[1], metrics.figures):
        await asyncio.Event().wait()
asyncio.run(main())
"""


def values_of(workers: Workers) -> dict[str, float]:
    return {figure.name: sum(row[0] for _, row in figure.series) for figure in workers.figures()}


def test_a_worker_that_is_gone_takes_its_gauges_with_it_and_none_of_its_counts(tmp_path):
    workers = Workers(str(tmp_path))
    processes = [subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path)]) for _ in range(2)]
    try:
        eventually(lambda: values_of(workers)["gateway_workers"] == 2, what="answers of both workers")
        assert values_of(workers)["gateway_usage_anomalies"] == 2
        assert values_of(workers)["gateway_requests_in_flight"] == 2
        processes[0].kill()
        processes[0].wait()
        assert values_of(workers)["gateway_workers"] == 1
        assert values_of(workers)["gateway_usage_anomalies"] == 2
        assert values_of(workers)["gateway_requests_in_flight"] == 1
    finally:
        for process in processes:
            process.kill()
            process.wait()


async def test_a_worker_without_a_folder_answers_nobody(tmp_path):
    async with answering(None, list):
        assert [*tmp_path.iterdir()] == []


def test_what_is_no_worker_is_not_added(tmp_path):
    folder = tmp_path / "made" / "for it"
    workers = Workers(str(folder))
    (folder / f"{os.getpid()}-1.sock").write_text("not a socket")
    (folder / "1-1.sock").write_text("of another supervisor")
    assert values_of(workers) == {"gateway_workers": 0}
    again = Workers(str(folder))
    assert [path.name for path in folder.iterdir()] == ["1-1.sock"]
    assert values_of(again) == {"gateway_workers": 0}


def scraped(port: int) -> Samples:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as reply:
        text = reply.read().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class One:
    def collect(self):
        yield GaugeMetricFamily("one", "one", value=1)


def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(One())
    return registry


async def test_a_scrape_reads_what_is_registered():
    with scrape.served(registry(), scrape.bound(host="127.0.0.1", port=0)) as port:
        assert (await asyncio.to_thread(scraped, port)) == {("one", ()): 1}


def test_where_a_port_is_taken_the_next_one_serves():
    with scrape.served(registry(), scrape.bound(host="127.0.0.1", port=0)) as port:
        other = scrape.bound(host="127.0.0.1", port=port)
        assert other.getsockname()[1] > port
        other.close()


def test_a_host_that_is_not_ours_is_an_error():
    with pytest.raises(OSError, match="assign"):
        scrape.bound(host="192.0.2.1", port=9464)
