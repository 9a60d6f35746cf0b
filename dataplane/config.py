"""Settings of the data plane: every environment variable that it reads, with its default and its rule.

The reference in the documents and ``.env.example`` are generated from here. May import ``shared``.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from shared import config, settings
from shared.config import Setting
from shared.redaction import Secret

_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", re.ASCII)


def _proxies(text: str) -> tuple[str, ...]:
    proxies = tuple(part.strip() for part in text.split(",") if part.strip())
    for proxy in proxies:
        try:
            ipaddress.ip_network(proxy, strict=False)
        except ValueError:
            if re.fullmatch(r"[0-9.:/]+", proxy) or _HOST_NAME.fullmatch(proxy) is None:
                raise ValueError("must be addresses, networks or host names, separated by commas") from None
    return proxies


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the data plane is told by its environment."""

    # Service
    bind_host: Annotated[str, Setting("GATEWAY_BIND_HOST", "Address to listen on for clients", group="Service")] = (
        "0.0.0.0"  # noqa: S104 - a container binds all its addresses; the compose file publishes none of them
    )
    bind_port: Annotated[
        int, Setting("GATEWAY_BIND_PORT", "Port to listen on for clients", minimum=1, maximum=65535, group="Service")
    ] = 8080
    workers: Annotated[
        int, Setting("GATEWAY_WORKERS", "Worker processes of this replica", minimum=1, maximum=64, group="Service")
    ] = 1
    log_level: settings.LogLevel = "info"
    log_format: settings.LogFormat = "json"
    request_id_header: Annotated[
        str,
        Setting(
            "GATEWAY_REQUEST_ID_HEADER",
            "Header of every reply that carries the request id",
            pattern=r"[A-Za-z][A-Za-z0-9-]{0,63}",
            group="Service",
        ),
    ] = "X-Request-ID"
    trusted_proxies: Annotated[
        tuple[str, ...],
        Setting(
            "GATEWAY_TRUSTED_PROXIES",
            "Peers whose X-Forwarded-For is believed: addresses, networks or host names",
            parse=_proxies,
            group="Service",
        ),
    ] = ("127.0.0.1", "caddy")
    metrics_bind: Annotated[
        str,
        Setting(
            "GATEWAY_METRICS_BIND",
            "host:port for metrics, of all workers together; where it is taken, the next port",
            pattern=r"\S+:\d+",
            group="Service",
        ),
    ] = "127.0.0.1:9464"
    runtime_dir: Annotated[
        str | None,
        Setting(
            "GATEWAY_RUNTIME_DIR",
            "Folder of sockets on which workers answer their supervisor; unset: a temporary one",
            group="Service",
        ),
    ] = None
    playground_enabled: Annotated[
        bool, Setting("PLAYGROUND_ENABLED", "Serve the playground at /playground", group="Service")
    ] = False
    drain_timeout_s: Annotated[
        float,
        Setting("GATEWAY_DRAIN_TIMEOUT_S", "Time for streams to finish after SIGTERM", minimum=0, group="Service"),
    ] = 30.0

    # Redis and control plane
    redis_url: settings.RedisURL
    redis_timeout_s: Annotated[
        float, Setting("REDIS_TIMEOUT_S", "Deadline of one admission", minimum=0.01, maximum=5, group="Redis")
    ] = 0.15
    key_cache_ttl_s: Annotated[
        float, Setting("REDIS_KEY_CACHE_TTL_S", "How long a resolved key is kept in memory", minimum=0, group="Redis")
    ] = 60.0
    control_addresses: Annotated[
        tuple[str, ...],
        Setting("GATEWAY_CONTROL_ADDRESSES", "Control planes, host:port, separated by commas", group="Control plane"),
    ] = ()
    dataplane_token: Annotated[
        Secret | None, Setting("GATEWAY_DATAPLANE_TOKEN", "Credential towards the control plane", group="Control plane")
    ] = None

    control_tls_ca: Annotated[
        str | None,
        Setting(
            "GATEWAY_CONTROL_TLS_CA",
            "Authorities that control planes are believed by, PEM file; unset: plaintext",
            group="Control plane",
        ),
    ] = None
    control_tls_cert: Annotated[
        str | None,
        Setting("GATEWAY_CONTROL_TLS_CERT", "Own certificate towards control planes, PEM file", group="Control plane"),
    ] = None
    control_tls_key: Annotated[
        str | None,
        Setting("GATEWAY_CONTROL_TLS_KEY", "Private key of that certificate, PEM file", group="Control plane"),
    ] = None
    advertised_address: Annotated[
        str | None,
        Setting(
            "GATEWAY_ADVERTISED_ADDRESS",
            "host:port by which operators know this replica; unset: host name and port",
            pattern=r"\S+:\d+",
            group="Control plane",
        ),
    ] = None

    # Security
    key_pepper: settings.KeyPepper
    sealing_key: settings.SealingKey
    auth_failures_per_minute: Annotated[
        int,
        Setting(
            "AUTH_FAILURE_RATE_LIMIT_PER_IP_PER_MIN", "Failed authentications per address", minimum=1, group="Security"
        ),
    ] = 20

    # Limits
    default_rpm: Annotated[int, Setting("DEFAULT_RPM", "Requests per minute by default", minimum=1, group="Limits")] = (
        60
    )
    default_tpm: Annotated[int, Setting("DEFAULT_TPM", "Tokens per minute by default", minimum=1, group="Limits")] = (
        100_000
    )
    default_concurrent: Annotated[
        int, Setting("DEFAULT_CONCURRENT", "Concurrent requests by default", minimum=1, group="Limits")
    ] = 8
    max_body_bytes: Annotated[
        int, Setting("MAX_REQUEST_BODY_BYTES", "Longest request body", minimum=1024, group="Limits")
    ] = 262_144
    max_num_predict: Annotated[
        int, Setting("MAX_NUM_PREDICT", "Most tokens that one request may produce", minimum=16, group="Limits")
    ] = 4096

    # Deadlines
    connect_timeout_s: Annotated[
        float,
        Setting("OLLAMA_CONNECT_TIMEOUT_S", "Deadline of a connection to a backend", minimum=0.1, group="Deadlines"),
    ] = 5.0
    first_record_timeout_s: Annotated[
        float,
        Setting(
            "OLLAMA_READ_TIMEOUT_S", "Deadline of the first record, model load included", minimum=1, group="Deadlines"
        ),
    ] = 600.0
    idle_timeout_s: Annotated[
        float, Setting("OLLAMA_IDLE_TIMEOUT_S", "Longest pause between two records", minimum=1, group="Deadlines")
    ] = 120.0
    total_timeout_s: Annotated[
        float, Setting("OLLAMA_TOTAL_TIMEOUT_S", "Longest life of one request", minimum=1, group="Deadlines")
    ] = 3600.0
    body_timeout_s: Annotated[
        float, Setting("GATEWAY_BODY_TIMEOUT_S", "Deadline of a request's body", minimum=0.1, group="Deadlines")
    ] = 10.0
    write_stall_timeout_s: Annotated[
        float,
        Setting("GATEWAY_WRITE_STALL_TIMEOUT_S", "How long a client may stop reading", minimum=0.1, group="Deadlines"),
    ] = 30.0
    max_connections: Annotated[
        int, Setting("OLLAMA_MAX_CONNECTIONS", "Connections to one backend per worker", minimum=1, group="Deadlines")
    ] = 64

    # Audit
    settle_buffer_size: Annotated[
        int, Setting("AUDIT_BUFFER_SIZE", "Settlements kept while Redis is away", minimum=1, group="Audit")
    ] = 1000
    backlog_max_events: Annotated[
        int, Setting("AUDIT_BACKLOG_MAX", "Undrained usage events before admission denies", minimum=16, group="Audit")
    ] = 1_000_000
    prompt_log_days: settings.PromptLogDays = 30

    # Telemetry
    otlp_endpoint: settings.OTLPEndpoint = None
    otlp_headers: settings.OTLPHeaders = None
    otlp_service: settings.OTLPService = None
    traced_share: settings.TracedShare = 0.01
    metrics_interval_ms: settings.MetricsInterval = 60_000


def load(environ: Mapping[str, str]) -> Settings:
    """The settings; raises ``shared.config.ConfigurationError`` with every fault at once."""
    return config.load(Settings, environ, _faults_between)


def _faults_between(known: Mapping[str, Any]) -> Iterator[str]:
    files = {name: known.get(f"control_tls_{name.lower()}") for name in ("CA", "CERT", "KEY")}
    if (files["CERT"] is None) != (files["KEY"] is None):
        yield "GATEWAY_CONTROL_TLS_CERT, GATEWAY_CONTROL_TLS_KEY: must be set together"
    if files["CERT"] is not None and files["CA"] is None:
        yield "GATEWAY_CONTROL_TLS_CERT: needs GATEWAY_CONTROL_TLS_CA"
    for name, path in files.items():
        if path is not None and not Path(path).is_file():
            yield f"GATEWAY_CONTROL_TLS_{name}: must be a file that can be read"
