"""Metrics of the data plane, as somebody who scrapes them sees them."""

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from dataplane.metrics import Metrics
from shared import scrape


def scraped(port: int) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def served():
    metrics = Metrics()
    with scrape.served(metrics.registry, host="127.0.0.1", port=0) as server:
        yield metrics, server.server_port


def test_requests_tokens_and_durations_are_counted(served):
    metrics, port = served
    metrics.request_ended(tenant="acme", model="llama3:latest", status=200, duration_s=0.2)
    metrics.tokens_charged(tenant="acme", model="llama3:latest", prompt=3, completion=5)
    metrics.gauge("gateway_ready", "ready", lambda: 1.0)
    metrics.anomaly_seen("prompt_count")
    seen = scraped(port)
    labels = (("model", "llama3:latest"), ("tenant", "acme"))
    assert seen["gateway_requests_total", (labels[0], ("status", "200"), labels[1])] == 1
    assert seen["gateway_tokens_total", (("direction", "prompt"), *labels)] == 3
    assert seen["gateway_tokens_total", (("direction", "completion"), *labels)] == 5
    assert seen["gateway_request_duration_seconds_count", labels] == 1
    assert seen["gateway_ready", ()] == 1
    assert seen["gateway_usage_anomalies_total", (("kind", "prompt_count"),)] == 1


def test_a_second_worker_takes_the_next_port(served):
    _metrics, port = served
    with scrape.served(Metrics().registry, host="127.0.0.1", port=port) as other:
        assert other.server_port > port


def test_a_host_that_is_not_ours_is_an_error():
    with pytest.raises(OSError, match="assign"), scrape.served(Metrics().registry, host="192.0.2.1", port=9464):
        pass
