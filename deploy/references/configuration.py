"""Settings: every environment variable of the planes and of the command line, and those of Compose and the tools.

Sources are the ``Settings`` of ``dataplane.config``, ``controlplane.config`` and ``controlplane.cli.settings``. What
the compose files, scripts and tests read besides has no declaration; its words are here, and a test looks for others.
"""

from __future__ import annotations

from collections.abc import Iterable

from controlplane.cli.settings import Settings as CommandLineSettings
from deploy.environment import PLANES, text_of
from deploy.references.sections import code, table
from shared.config import Declared, declared
from shared.redaction import Secret

_SHORT = {"data plane": "data", "control plane": "control"}
_KINDS = {str: "text", int: "whole number", float: "number", bool: "true, false", Secret: "secret"}

COMPOSE = (
    ("GATEWAY_DOMAIN", "Public name that Caddy gets a certificate for. **Required**"),
    ("ACME_EMAIL", "Address that the certificate authority may write to. **Required**"),
    ("GATEWAY_VERSION", "Tag of the images that are built and run (`local`)"),
    ("OLLAMA_CPUS", "Processors that Ollama may use"),
    ("OLLAMA_MEMORY", "Memory that Ollama may use"),
)
TOOLS = (
    ("GATEWAY_CLI_CONFIG", "File with the options of the command line, in place of `neuronetz-gateway/config.toml`"),
    ("GATEWAY_PG_BIN", "Folder with the programs of the Postgres that the embedded stack and the tests start"),
    ("GATEWAY_REDIS_BIN", "Program of the Redis or Valkey that they start"),
    ("GATEWAY_BROWSER_BIN", "Chromium that the tests of the playground drive"),
    ("GATEWAY_BUF", "Program `buf` that judges the protos"),
    ("GATEWAY_CONTROL_PASSWORD", "Password of the role `gateway_control`, for `deploy/postgres/roles.sql`"),
    ("GATEWAY_OPERATOR_PASSWORD", "Password of the role `gateway_operator`, likewise"),
    ("GATEWAY_CONSOLE_PASSWORD", "Password of the role `console`, likewise"),
    ("GATEWAY_REDIS_DATAPLANE_PASSWORD", "Password of the user of data planes, for `deploy/redis/render.sh`"),
    ("GATEWAY_REDIS_CONTROLPLANE_PASSWORD", "Password of the user of control planes, likewise"),
    ("GATEWAY_REDIS_OPERATOR_PASSWORD", "Password of the user of operators, likewise"),
    ("GATEWAY_HTTP_PORT", "Port of Caddy for plain HTTP, where it is not 80"),
    ("GATEWAY_HTTPS_PORT", "Port of Caddy for TLS, where it is not 443"),
    ("CADDY_HEALTH_PORT", "Port on loopback where Caddy says that it is well, where it is not 2020"),
    ("GATEWAY_UPSTREAM_HOST", "Where Caddy finds data planes, where it is not `dataplane`"),
    ("GATEWAY_UPSTREAM_PORT", "Their port, where it is not 8080"),
)


def planes() -> str:
    """The tables of the planes' settings, by group."""
    readers: dict[str, dict[str, Declared]] = {}
    for plane, settings in PLANES:
        for item in declared(settings):
            readers.setdefault(item.setting.name, {})[_SHORT[plane]] = item
    groups: dict[str, dict[str, dict[str, Declared]]] = {}
    for name, items in readers.items():
        # Where the planes put it into different groups the first one's counts.
        groups.setdefault(next(iter(items.values())).setting.group, {})[name] = items
    parts = []
    for group, variables in groups.items():
        rows = (_row(name, items) for name, items in variables.items())
        parts.append(f"### {group}\n\n" + table(("Variable", "Default", "Takes", "Plane", "What for"), rows))
    return "\n\n".join(parts)


def command_line() -> str:
    """The table of the command line's settings."""
    rows = (
        (code(item.setting.name), code(text_of(item.default)), _taken(item), item.setting.help)
        for item in declared(CommandLineSettings)
    )
    return table(("Variable", "Default", "Takes", "What for"), rows)


def compose() -> str:
    """The table of what the compose files read for themselves."""
    return _plain(COMPOSE)


def tools() -> str:
    """The table of what scripts and tests read."""
    return _plain(TOOLS)


def _plain(words: Iterable[tuple[str, str]]) -> str:
    return table(("Variable", "What for"), ((code(name), what) for name, what in words))


def _row(name: str, items: dict[str, Declared]) -> tuple[str, ...]:
    first = next(iter(items.values()))
    default = _each({plane: code(text_of(item.default)) for plane, item in items.items()}, ", ")
    what = _each({plane: item.setting.help for plane, item in items.items()}, "; ")
    return code(name), "**required**" if first.required else default, _taken(first), ", ".join(items), what


def _each(texts: dict[str, str], separator: str) -> str:
    """A text that both planes share, or what each of them has."""
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return separator.join(f"{text} ({plane})" for plane, text in texts.items())


def _taken(item: Declared) -> str:
    setting = item.setting
    if setting.choices:
        return ", ".join(code(choice) for choice in setting.choices)
    words = _KINDS.get(item.kind, "list" if getattr(item.kind, "__origin__", item.kind) is tuple else "text")
    if setting.minimum is not None and setting.maximum is not None:
        return f"{words}, {setting.minimum:.15g} to {setting.maximum:.15g}"
    return words if setting.minimum is None else f"{words}, at least {setting.minimum:.15g}"
