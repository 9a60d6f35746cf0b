"""Settings of the control plane: every environment variable that it reads, with its default and its rule.

The reference in the documents and ``.env.example`` are generated from here. May import ``shared`` and the pure rules
of ``controlplane.core``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from controlplane.core import roles
from controlplane.core.backends import BackendsError, StaticBackend, parse_backends, single_backend
from controlplane.core.database_url import connection_options
from shared import config, settings
from shared.config import Setting
from shared.redaction import Secret

DEFAULT_BASE_URL = "http://127.0.0.1:11434"


def _database_url(text: str) -> Secret:
    connection_options(text)
    return Secret(text)


def _backends(text: str) -> tuple[StaticBackend, ...] | None:
    # Set but empty, as compose files leave it, is unset; an empty list says that there are none.
    return parse_backends(text) if text else None


def _token(text: str) -> Secret:
    return roles.check_token(Secret(text))


class Address(msgspec.Struct, frozen=True):
    """Where to listen."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 <= int(port) <= 65535:
        raise ValueError("must be host:port")
    return Address(host.removeprefix("[").removesuffix("]"), int(port))


class DatabaseSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where Postgres is: all that a migration needs to know."""

    database_url: Annotated[
        Secret,
        Setting("DATABASE_URL", "Postgres: postgres://user:password@host/name", parse=_database_url, group="Database"),
    ]
    database_pool_size: Annotated[
        int, Setting("DATABASE_POOL_SIZE", "Connections of the pool", minimum=1, maximum=1000, group="Database")
    ] = 10
    database_overflow: Annotated[
        int, Setting("DATABASE_POOL_OVERFLOW", "Further ones under load", minimum=0, maximum=1000, group="Database")
    ] = 20


class Settings(DatabaseSettings, frozen=True, kw_only=True):
    """What the control plane is told by its environment."""

    # Service
    admin_bind: Annotated[
        Address, Setting("GATEWAY_ADMIN_BIND", "host:port of the gRPC server", parse=_address, group="Service")
    ] = Address("127.0.0.1", 9090)
    admin_plaintext: Annotated[
        bool,
        Setting(
            "GATEWAY_ADMIN_PLAINTEXT", "Allow gRPC without TLS beyond loopback (a private network)", group="Service"
        ),
    ] = False
    log_level: settings.LogLevel = "info"
    log_format: settings.LogFormat = "json"
    metrics_bind: Annotated[
        Address, Setting("GATEWAY_METRICS_BIND", "host:port for metrics", parse=_address, group="Service")
    ] = Address("127.0.0.1", 9465)
    drain_timeout_s: Annotated[
        float,
        Setting("GATEWAY_DRAIN_TIMEOUT_S", "Time for calls to finish after SIGTERM", minimum=0, group="Service"),
    ] = 10.0

    # Redis
    redis_url: settings.RedisURL
    receipt_timeout_s: Annotated[
        float,
        Setting(
            "GATEWAY_RECEIPT_TIMEOUT_S",
            "How long an answer waits for every worker to acknowledge a change",
            minimum=0,
            maximum=60,
            group="Deadlines",
        ),
    ] = 2.0
    redis_timeout_s: Annotated[
        float, Setting("GATEWAY_PUBLISH_TIMEOUT_S", "Deadline of one command", minimum=0.05, maximum=30, group="Redis")
    ] = 1.0

    # Security
    key_pepper: settings.KeyPepper
    sealing_key: settings.SealingKey
    admin_token: Annotated[
        Secret, Setting("GATEWAY_ADMIN_TOKEN", "Token of the first administrator", parse=_token, group="Security")
    ]
    operator_tokens: Annotated[
        tuple[roles.OperatorToken, ...],
        Setting(
            "GATEWAY_OPERATOR_TOKENS",
            "Further operators as name:role:token, separated by commas; roles are viewer, operator, admin",
            parse=roles.parse_operator_tokens,
            group="Security",
        ),
    ] = ()
    operator_certificates: Annotated[
        tuple[roles.OperatorCertificate, ...],
        Setting(
            "GATEWAY_OPERATOR_CERTIFICATES",
            "Callers known by a client certificate in place of a token, as identity:role, separated by commas; the "
            "identity is its common or an alternative name, roles are viewer, operator, admin, dataplane",
            parse=roles.parse_operator_certificates,
            group="Security",
        ),
    ] = ()
    admin_calls_per_s: Annotated[
        int,
        Setting(
            "GATEWAY_ADMIN_CALLS_PER_S",
            "Calls of one operator per second, in bursts of five times as many",
            minimum=1,
            maximum=100_000,
            group="Service",
        ),
    ] = 200
    dataplane_token: Annotated[
        Secret | None,
        Setting("GATEWAY_DATAPLANE_TOKEN", "Token of the data planes", parse=_token, group="Security"),
    ] = None
    tls_cert: Annotated[
        str | None,
        Setting("GATEWAY_ADMIN_TLS_CERT", "Certificate chain of the gRPC server, PEM file", group="Security"),
    ] = None
    tls_key: Annotated[
        str | None, Setting("GATEWAY_ADMIN_TLS_KEY", "Private key of that certificate, PEM file", group="Security")
    ] = None
    tls_client_ca: Annotated[
        str | None,
        Setting(
            "GATEWAY_ADMIN_TLS_CLIENT_CA",
            "Authorities whose client certificates are required, PEM file",
            group="Security",
        ),
    ] = None
    argon2_time_cost: Annotated[
        int, Setting("ARGON2_TIME_COST", "Argon2id passes", minimum=1, maximum=100, group="Security")
    ] = 3
    argon2_memory_kib: Annotated[
        int, Setting("ARGON2_MEMORY_COST_KIB", "Argon2id memory", minimum=8, maximum=4_194_304, group="Security")
    ] = 65_536
    argon2_parallelism: Annotated[
        int, Setting("ARGON2_PARALLELISM", "Argon2id lanes", minimum=1, maximum=64, group="Security")
    ] = 4

    # Upstream
    ollama_backends: Annotated[
        tuple[StaticBackend, ...] | None,
        Setting(
            "OLLAMA_BACKENDS",
            "JSON list of backends: name, url and perhaps token, header, scheme, priority, weight",
            parse=_backends,
            group="Upstream",
        ),
    ] = None
    ollama_base_url: Annotated[
        str | None, Setting("OLLAMA_BASE_URL", f"The only backend ({DEFAULT_BASE_URL})", group="Upstream")
    ] = None
    ollama_auth_token: Annotated[
        Secret | None, Setting("OLLAMA_AUTH_TOKEN", "Credential of the only backend", group="Upstream")
    ] = None
    connect_timeout_s: Annotated[
        float,
        Setting("OLLAMA_CONNECT_TIMEOUT_S", "Deadline of a connection to a backend", minimum=0.1, group="Upstream"),
    ] = 5.0

    # Discovery
    discovery_refresh_s: Annotated[
        float,
        Setting("MODEL_DISCOVERY_REFRESH_S", "Time between two polls of a backend", minimum=0.1, group="Discovery"),
    ] = 60.0
    discovery_ttl_s: Annotated[
        float,
        Setting("MODEL_DISCOVERY_CACHE_TTL_S", "How long a discovered list is believed", minimum=1, group="Discovery"),
    ] = 120.0

    # Audit
    audit_log_days: Annotated[
        int,
        Setting(
            "AUDIT_LOG_DEFAULT_RETENTION_DAYS",
            "Days that audit rows are kept",
            minimum=1,
            maximum=36_500,
            group="Audit",
        ),
    ] = 365
    prompt_log_days: settings.PromptLogDays = 30

    # Telemetry
    otlp_endpoint: settings.OTLPEndpoint = None
    otlp_headers: settings.OTLPHeaders = None
    otlp_service: settings.OTLPService = None
    traced_share: settings.TracedShare = 0.01
    metrics_interval_ms: settings.MetricsInterval = 60_000
    backlog_max_bytes: Annotated[
        int,
        Setting(
            "AUDIT_BACKLOG_BYTES",
            "Memory of undrained usage events before admission denies",
            minimum=1_048_576,
            group="Audit",
        ),
    ] = 1_073_741_824

    @property
    def static_backends(self) -> tuple[StaticBackend, ...]:
        """Backends of the environment in routing order; ``load`` has checked that they can be made."""
        return static_backends(self.ollama_backends, self.ollama_base_url, self.ollama_auth_token)


def static_backends(
    listed: tuple[StaticBackend, ...] | None, base_url: str | None, token: Secret | None
) -> tuple[StaticBackend, ...]:
    """The backends of a list or, without one, the only one. Raises ``BackendsError`` when that cannot be made."""
    if listed:
        return listed
    if listed is not None and base_url is None:
        return ()
    return (single_backend(base_url or DEFAULT_BASE_URL, token),)


def load_database(environ: Mapping[str, str]) -> DatabaseSettings:
    """The settings of the database alone; raises ``shared.config.ConfigurationError`` with every fault at once."""
    return config.load(DatabaseSettings, environ)


def load(environ: Mapping[str, str]) -> Settings:
    """The settings; raises ``shared.config.ConfigurationError`` with every fault at once."""
    return config.load(Settings, environ, _faults_between)


def partial(environ: Mapping[str, str]) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """What of the settings can be read, by field and with defaults, and every fault: for a look at a deployment."""
    read: dict[str, Any] = {}

    def rules(known: Mapping[str, Any]) -> Iterator[str]:
        read.update(known)
        yield from _faults_between(known)

    try:
        config.load(Settings, environ, rules)
    except config.ConfigurationError as error:
        return read, error.faults
    return read, ()


def _faults_between(known: Mapping[str, Any]) -> Iterator[str]:
    yield from _token_faults(known)
    yield from _tls_faults(known)
    ttl_s, refresh_s = known.get("discovery_ttl_s"), known.get("discovery_refresh_s")
    if ttl_s is not None and refresh_s is not None and ttl_s <= refresh_s:
        yield "MODEL_DISCOVERY_CACHE_TTL_S: must be longer than MODEL_DISCOVERY_REFRESH_S"
    if not known.get("ollama_backends") and known.get("ollama_base_url"):
        try:
            single_backend(known["ollama_base_url"], known.get("ollama_auth_token"))
        except BackendsError as fault:
            yield f"OLLAMA_BASE_URL, OLLAMA_AUTH_TOKEN: {fault}"


def _token_faults(known: Mapping[str, Any]) -> Iterator[str]:
    tokens = [known.get("admin_token"), known.get("dataplane_token")]
    tokens += [operator.token for operator in known.get("operator_tokens", ())]
    given = [token for token in tokens if token is not None]
    if len(set(given)) < len(given):
        yield "GATEWAY_ADMIN_TOKEN, GATEWAY_OPERATOR_TOKENS, GATEWAY_DATAPLANE_TOKEN: must all be different"


def _tls_faults(known: Mapping[str, Any]) -> Iterator[str]:
    cert, key, client_ca = (known.get(name) for name in ("tls_cert", "tls_key", "tls_client_ca"))
    if (cert is None) != (key is None):
        yield "GATEWAY_ADMIN_TLS_CERT, GATEWAY_ADMIN_TLS_KEY: must be set together"
    if client_ca is not None and cert is None:
        yield "GATEWAY_ADMIN_TLS_CLIENT_CA: needs GATEWAY_ADMIN_TLS_CERT"
    if known.get("operator_certificates") and client_ca is None:
        yield "GATEWAY_OPERATOR_CERTIFICATES: needs GATEWAY_ADMIN_TLS_CLIENT_CA"
    files = {"TLS_CERT": cert, "TLS_KEY": key, "TLS_CLIENT_CA": client_ca}
    for name, path in files.items():
        if path is not None and not Path(path).is_file():
            yield f"GATEWAY_ADMIN_{name}: must be a file that can be read"
    address = known.get("admin_bind")
    if cert is None and isinstance(address, Address) and not address.is_loopback and not known.get("admin_plaintext"):
        yield "GATEWAY_ADMIN_BIND: beyond loopback needs GATEWAY_ADMIN_TLS_CERT or GATEWAY_ADMIN_PLAINTEXT=true"
