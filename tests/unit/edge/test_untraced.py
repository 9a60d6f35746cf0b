"""Where nothing is traced the stages hold the very objects that they would hold if traces did not exist."""

from __future__ import annotations

import base64

import pytest

from dataplane import config, tracing
from dataplane.api.server import Server
from dataplane.app import Worker
from shared.config import ConfigurationError

ENVIRONMENT = {
    "REDIS_URL": "redis://127.0.0.1:1",
    "GATEWAY_KEY_PEPPER": "p" * 48,
    "GATEWAY_SEALING_KEY": base64.b64encode(b"s" * 32).decode(),
}
ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}


async def worker(**environment: str) -> Worker:
    return Worker(config.load(ENVIRONMENT | environment))


@pytest.mark.parametrize("environment", [{}, ENDPOINT | {"OTEL_TRACES_SAMPLER_ARG": "0"}])
async def test_without_traces_no_wrapper_is_in_the_way(environment):
    untraced = await worker(**environment)
    pipeline = untraced.server._pipeline
    assert type(untraced.clients) is Server
    assert pipeline._admit._leases is untraced.leases
    assert pipeline._admit._keys is untraced.keys
    assert pipeline._authenticate._keys is untraced.keys
    assert pipeline._relay.upstreams is pipeline._route._upstreams
    assert untraced.settlements._on_sent is None
    assert "SpanAttributes" not in repr(pipeline._settle._observer)


async def test_with_traces_every_stage_is_watched():
    traced = await worker(**ENDPOINT)
    pipeline = traced.server._pipeline
    assert isinstance(traced.clients, tracing.TracedServer)
    assert isinstance(pipeline._admit._leases, tracing.TracedLeases)
    assert isinstance(pipeline._authenticate._keys, tracing.TracedKeys)
    assert isinstance(pipeline._relay.upstreams, tracing.TracedUpstreams)
    assert traced.settlements._on_sent is not None
    assert "SpanAttributes" in repr(pipeline._settle._observer)
    assert traced.tracing is not None
    traced.tracing.close()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "1"),
    ],
)
async def test_what_telemetry_cannot_be_told_is_refused_at_the_start(name, value):
    with pytest.raises(ConfigurationError, match=name):
        await worker(**{name: value})
