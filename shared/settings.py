"""Settings that both planes read: the same variable, the same rule, the same words.

A plane declares such a field with the type from here: ``key_pepper: settings.KeyPepper``.
"""

from __future__ import annotations

from typing import Annotated

from shared import apikey, logs, sealing
from shared.config import Setting
from shared.redaction import Secret

REDIS_SCHEMES = ("redis://", "rediss://")


def _pepper(text: str) -> Secret:
    if len(text.encode()) < apikey.MIN_PEPPER_BYTES:
        raise ValueError(f"must have at least {apikey.MIN_PEPPER_BYTES} bytes")
    return Secret(text)


def _sealing_key(text: str) -> Secret:
    sealing.decode_key(text)
    return Secret(text)


def _redis_url(text: str) -> Secret:
    if not text.startswith(REDIS_SCHEMES):
        raise ValueError(f"must start with {' or '.join(REDIS_SCHEMES)}")
    return Secret(text)


LogLevel = Annotated[
    str, Setting("GATEWAY_LOG_LEVEL", "Least severe level logged", choices=logs.LEVELS, group="Service")
]
LogFormat = Annotated[
    str, Setting("GATEWAY_LOG_FORMAT", "json, or console for a person", choices=logs.FORMATS, group="Service")
]
RedisURL = Annotated[
    Secret, Setting("REDIS_URL", "Redis that admission is decided on", parse=_redis_url, group="Redis")
]
KeyPepper = Annotated[
    Secret,
    Setting("GATEWAY_KEY_PEPPER", "Secret in every key's checksum and digest", parse=_pepper, group="Security"),
]
SealingKey = Annotated[
    Secret,
    Setting(
        "GATEWAY_SEALING_KEY",
        "32 bytes as base64 that seal backend credentials",
        parse=_sealing_key,
        group="Security",
    ),
]
PromptLogDays = Annotated[
    int,
    Setting(
        "PROMPT_LOG_DEFAULT_RETENTION_DAYS",
        "Days that logged prompts are kept",
        minimum=1,
        maximum=3650,
        group="Audit",
    ),
]


def _endpoint(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise ValueError("must start with http:// or https://")
    return text


OTLPEndpoint = Annotated[
    str | None,
    Setting(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "Where traces and metrics are sent by OTLP over gRPC; unset: nowhere",
        parse=_endpoint,
        group="Telemetry",
    ),
]
OTLPHeaders = Annotated[
    Secret | None,
    Setting("OTEL_EXPORTER_OTLP_HEADERS", "Headers of exports: name=value, separated by commas", group="Telemetry"),
]
OTLPService = Annotated[
    str | None,
    Setting("OTEL_SERVICE_NAME", "Name of the service; unset: neuronetz-gateway and the plane", group="Telemetry"),
]
TracedShare = Annotated[
    float,
    Setting(
        "OTEL_TRACES_SAMPLER_ARG", "Share of requests that are traced, 0 to 1", minimum=0, maximum=1, group="Telemetry"
    ),
]
MetricsInterval = Annotated[
    int,
    Setting("OTEL_METRIC_EXPORT_INTERVAL", "Milliseconds between exports of metrics", minimum=100, group="Telemetry"),
]
