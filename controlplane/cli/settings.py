"""Where the server is and how its answers are shown: flags first, then the environment, then a file, then defaults.

Whatever is missing or wrong is reported at once as ``shared.config.ConfigurationError`` (exit 64) before anything is
sent. A token never travels in plaintext to another machine unless the operator says so.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import click
import msgspec

from controlplane.cli import configfile
from shared.config import ConfigurationError, Setting, load
from shared.redaction import Secret

OUTPUTS = ("table", "json", "yaml")
DEFAULT_TIMEOUT_S = 30.0

type Output = Literal["table", "json", "yaml"]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line reads from its environment; each has a flag that wins over it."""

    address: Annotated[
        str | None, Setting("GATEWAY_ADMIN_ADDRESS", "host:port of the admin API", group="Command line")
    ] = None
    token: Annotated[
        Secret | None, Setting("GATEWAY_ADMIN_TOKEN", "Bearer token of the operator", group="Command line")
    ] = None
    tls: Annotated[
        bool, Setting("GATEWAY_ADMIN_TLS", "Use TLS with the system's authorities", group="Command line")
    ] = False
    tls_ca: Annotated[
        str | None, Setting("GATEWAY_ADMIN_TLS_CA", "PEM file of the server's authority", group="Command line")
    ] = None
    tls_cert: Annotated[
        str | None, Setting("GATEWAY_ADMIN_TLS_CLIENT_CERT", "PEM file of our certificate", group="Command line")
    ] = None
    tls_key: Annotated[
        str | None, Setting("GATEWAY_ADMIN_TLS_CLIENT_KEY", "PEM file of its private key", group="Command line")
    ] = None
    insecure: Annotated[
        bool,
        Setting(
            "GATEWAY_ADMIN_PLAINTEXT",
            "Send a token without TLS beyond loopback (a private network)",
            group="Command line",
        ),
    ] = False
    timeout_s: Annotated[
        float,
        Setting("GATEWAY_ADMIN_TIMEOUT_S", "Seconds until an answer", minimum=0.1, maximum=3600, group="Command line"),
    ] = DEFAULT_TIMEOUT_S
    output: Annotated[
        Output, Setting("GATEWAY_OUTPUT", "How answers are shown", choices=OUTPUTS, group="Command line")
    ] = "table"


@dataclass(frozen=True, slots=True, kw_only=True)
class TLS:
    """PEM texts; None for the system's authorities and for no certificate of our own."""

    authority: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """One admin API and how to reach it; ``tls`` None means plaintext."""

    address: str
    token: Secret | None
    tls: TLS | None
    timeout_s: float


class CommonOption(click.Option):
    """An option that every command has, before the command and after it; help lists them apart."""


def common_options() -> list[CommonOption]:
    """New instances of the options about the server and the output; their names are fields of ``Settings``."""
    file = click.Path(exists=True, dir_okay=False)
    return [
        CommonOption(["output", "--output", "-o"], type=click.Choice(OUTPUTS), help="How the answer is shown."),
        CommonOption(
            ["config", "--config"],
            type=file,
            help="TOML file with these options (address, token_file, tls, …); else GATEWAY_CLI_CONFIG.",
        ),
        CommonOption(["address", "--address"], metavar="HOST:PORT", help="The admin API; else GATEWAY_ADMIN_ADDRESS."),
        CommonOption(
            ["token_file", "--token-file"],
            type=file,
            help="File with the operator's token; else GATEWAY_ADMIN_TOKEN or GATEWAY_ADMIN_TOKEN_FILE.",
        ),
        CommonOption(["token", "--token"], help="The operator's token itself; others may see it in the process list."),
        CommonOption(["tls", "--tls"], is_flag=True, default=None, help="Use TLS with the system's authorities."),
        CommonOption(["tls_ca", "--tls-ca"], type=file, help="Use TLS; the server's authority is in this PEM file."),
        CommonOption(["tls_cert", "--tls-cert"], type=file, help="Use TLS and show this certificate (PEM)."),
        CommonOption(["tls_key", "--tls-key"], type=file, help="Private key of that certificate (PEM)."),
        CommonOption(
            ["insecure", "--insecure"],
            is_flag=True,
            default=None,
            help="Send the token without TLS also beyond this machine.",
        ),
        CommonOption(
            ["timeout_s", "--timeout"],
            type=click.FloatRange(min=0.1, max=3600),
            metavar="SECONDS",
            help=f"Longest wait for an answer (default {DEFAULT_TIMEOUT_S:g}).",
        ),
    ]


def read(flags: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """File, environment and flags together; ``flags`` maps names of ``common_options`` to values, None where not given.

    Raises ``ConfigurationError``, and ``click.UsageError`` for flags that exclude each other.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    token_file, token = given.pop("token_file", None), given.pop("token", None)
    if token_file is not None and token is not None:
        raise click.UsageError("--token and --token-file exclude each other")
    settings = load(Settings, configfile.completed(given.pop("config", None), environ, Settings))
    if token_file is not None:
        token = _read(token_file, "--token-file").decode(errors="replace").strip()
    if token is not None:
        given["token"] = Secret(token)
    return msgspec.structs.replace(settings, **given)


def connection(settings: Settings) -> Connection:
    """How to reach the server; raises ``ConfigurationError`` with everything that is missing or unsafe."""
    faults = []
    if settings.address is None:
        faults.append("GATEWAY_ADMIN_ADDRESS: is required (or --address)")
    elif ":" not in settings.address or "//" in settings.address:
        faults.append("GATEWAY_ADMIN_ADDRESS: must be host:port")
    if (settings.tls_cert is None) != (settings.tls_key is None):
        faults.append("GATEWAY_ADMIN_TLS_CLIENT_CERT, GATEWAY_ADMIN_TLS_CLIENT_KEY: must be set together")
    if settings.token is None and settings.tls_cert is None:
        faults.append("GATEWAY_ADMIN_TOKEN: is required (or --token-file, or a client certificate)")
    elif settings.token is not None and not _is_header_safe(settings.token):
        faults.append("GATEWAY_ADMIN_TOKEN: must be printable ASCII without spaces")
    address = settings.address or ""
    encrypted = settings.tls or settings.tls_ca is not None or settings.tls_cert is not None
    if not faults and not encrypted and not settings.insecure and not is_this_machine(address):
        faults.append(f"GATEWAY_ADMIN_TLS: {address} is another machine, the token needs TLS (or --insecure)")
    if faults:
        raise ConfigurationError(faults)
    return Connection(
        address=address, token=settings.token, tls=_tls(settings) if encrypted else None, timeout_s=settings.timeout_s
    )


def is_this_machine(address: str) -> bool:
    """Whether an address stays on this machine; the unspecified addresses are what a server on it listens on."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].removeprefix("[").removesuffix("]")
    try:
        parsed = ipaddress.ip_address(host)
    except ValueError:
        return host.lower() == "localhost"
    return parsed.is_loopback or parsed.is_unspecified


def _tls(settings: Settings) -> TLS:
    return TLS(
        authority=_file(settings.tls_ca, "GATEWAY_ADMIN_TLS_CA"),
        certificate=_file(settings.tls_cert, "GATEWAY_ADMIN_TLS_CLIENT_CERT"),
        key=_file(settings.tls_key, "GATEWAY_ADMIN_TLS_CLIENT_KEY"),
    )


def _file(path: str | None, name: str) -> bytes | None:
    return None if path is None else _read(path, name)


def _read(path: str, name: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as fault:
        raise ConfigurationError([f"{name}: {path} cannot be read ({type(fault).__name__})"]) from fault


def _is_header_safe(token: Secret) -> bool:
    text = token.reveal()
    return bool(text) and text.isascii() and text.isprintable() and " " not in text
