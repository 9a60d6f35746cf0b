"""The file in which an operator keeps what they would otherwise type each time: where the gateway is, and as whom.

    address = "gateway.example.org:9090"
    token_file = "~/.config/neuronetz-gateway/token"
    tls = true

TOML; names are those of the flags with underscores (``address``, ``token_file``, ``token``, ``tls``, ``tls_ca``,
``tls_cert``, ``tls_key``, ``insecure``, ``timeout_s``, ``output``). Flags win over the environment, the environment
over the file. It is ``--config``, else ``GATEWAY_CLI_CONFIG``, else ``neuronetz-gateway/config.toml`` in the folder for
configurations, where it need not be.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from shared.config import ConfigurationError, declared

VARIABLE = "GATEWAY_CLI_CONFIG"
PLACE = Path("neuronetz-gateway") / "config.toml"
# Two ways to say the same: one from the environment hides both from the file.
_TOKEN, _TOKEN_FILE = "GATEWAY_ADMIN_TOKEN", "GATEWAY_ADMIN_TOKEN_FILE"
_PATHS = frozenset({"token_file", "tls_ca", "tls_cert", "tls_key"})


def completed(given: str | None, environ: Mapping[str, str], settings: type[msgspec.Struct]) -> Mapping[str, str]:
    """The environment, with what the file says about ``settings`` where the environment says nothing.

    Raises ``ConfigurationError`` for a file that was named and cannot be used, with every fault at once.
    """
    named = given or environ.get(VARIABLE)
    path = Path(named) if named else _usual_place(environ)
    if path is None:
        return environ
    try:
        text = path.read_text()
    except OSError as fault:
        if not named and isinstance(fault, FileNotFoundError | NotADirectoryError | PermissionError):
            return environ
        raise ConfigurationError([f"{VARIABLE}: {path} cannot be read ({type(fault).__name__})"]) from fault
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        # Without the parser's message: it may quote a token.
        raise ConfigurationError([f"{VARIABLE}: {path} is not TOML"]) from fault
    values = _values(document, path, settings)
    if environ.get(_TOKEN) or environ.get(_TOKEN_FILE):
        values.pop(_TOKEN, None)
        values.pop(_TOKEN_FILE, None)
    return {**values, **{name: value for name, value in environ.items() if value or name not in values}}


def _usual_place(environ: Mapping[str, str]) -> Path | None:
    if environ.get("XDG_CONFIG_HOME"):
        return Path(environ["XDG_CONFIG_HOME"]) / PLACE
    return Path(environ["HOME"]) / ".config" / PLACE if environ.get("HOME") else None


def _values(document: dict[str, Any], path: Path, settings: type[msgspec.Struct]) -> dict[str, str]:
    variables = {item.field: item.setting.name for item in declared(settings)} | {"token_file": _TOKEN_FILE}
    faults = [f"{path}: {name} is not known" for name in document if name not in variables]
    if "token" in document and "token_file" in document:
        faults.append(f"{path}: token and token_file exclude each other")
    if "token" in document and path.stat().st_mode & 0o077:
        faults.append(f"{path}: holds a token and can be read by others (chmod 600)")
    values = {}
    for name, value in document.items():
        if isinstance(value, dict | list):
            faults.append(f"{path}: {name} must be one value")
        elif name in variables:
            text = str(value).lower() if isinstance(value, bool) else str(value)
            values[variables[name]] = _place(text, path) if name in _PATHS else text
    if faults:
        raise ConfigurationError(faults)
    return values


def _place(text: str, path: Path) -> str:
    """A path of the file, from the folder of the file."""
    return str(path.parent / Path(text).expanduser())
