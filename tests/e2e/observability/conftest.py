"""One gateway that is watched in every way: two workers, traces and metrics by OTLP, all requests traced."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from deploy.local.ports import free_port
from tests.e2e.harness import Gateway, MockOllama, running
from tests.fakes.collector import Collector, collecting

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
OTLP_HEADER = "x-collector-token"
OTLP_SECRET = "otlp-secret-0123456789"


@pytest.fixture(scope="package")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="package")
def watched(mocks: list[MockOllama], collector: Collector, tmp_path_factory) -> Iterator[Gateway]:
    options = (
        f"--port={free_port()}",
        "--set=GATEWAY_WORKERS=2",
        f"--set=OTEL_EXPORTER_OTLP_ENDPOINT={collector.endpoint}",
        f"--set=OTEL_EXPORTER_OTLP_HEADERS={OTLP_HEADER}={OTLP_SECRET}",
        "--set=OTEL_TRACES_SAMPLER_ARG=1",
        "--set=OTEL_METRIC_EXPORT_INTERVAL=500",
        "--set=OTEL_BSP_SCHEDULE_DELAY=200",
    )
    with running(Gateway(tmp_path_factory.mktemp("watched"), mocks, *options)) as gateway:
        gateway.tenant("acme")
        gateway.first_key = gateway.key("acme")
        gateway.wait_for_models(gateway.first_key, "llama3.2:latest")
        yield gateway


def scraped(url: str) -> Samples:
    """Every sample of one scrape."""
    text = httpx.get(url, timeout=5, trust_env=False).text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(samples: Samples, name: str, **labels: str) -> float:
    """The sum of the samples of this name that have these labels."""
    wanted = labels.items()
    return sum(value for (sample, has), value in samples.items() if sample == name and wanted <= dict(has).items())
