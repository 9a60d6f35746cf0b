"""The backend commands on an environment file in place of a running gateway: ``--write-env`` and ``--env-file``.

The list is that of ``OLLAMA_BACKENDS``; where the file has none but names a single server (``OLLAMA_BASE_URL``), it
begins with that one. Tokens are written to the file and shown nowhere. The server of a new backend is asked from this
machine, with the headers that requests will carry.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from controlplane.cli import envfile
from controlplane.cli.errors import CallError
from controlplane.cli.settings import CommonOption, Output

_SERVICE = "/neuronetz.admin.v1.BackendService"
_INVALID, _EXISTS, _NOT_FOUND, _PROBE = "INVALID_ARGUMENT", "ALREADY_EXISTS", "NOT_FOUND", "FAILED_PRECONDITION"

type Item = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileVariant:
    """What a command does with a file: the option that names it, and the deed."""

    flag: str
    help: str
    run: Callable[[Any, Path, Output], None]

    def option(self) -> CommonOption:
        """A new instance of the option."""
        return CommonOption(
            ["environment_file", self.flag], type=click.Path(dir_okay=False, path_type=Path), help=self.help
        )


def variant(method: str) -> FileVariant | None:
    """What the command of an RPC does with a file; None for all but three."""
    return _VARIANTS.get(method)


def _add(request: Any, path: Path, output: Output) -> None:
    text = envfile.read(path)
    items = _items(text)
    place = next((index for index, item in enumerate(items) if item["name"] == request.name), None)
    if place is not None and not request.replace:
        raise CallError(_EXISTS, f"{path} has a backend {request.name!r} already; replace it with --replace")
    item = _item(request, {} if place is None else items[place])
    items[len(items) if place is None else place : len(items) if place is None else place + 1] = [item]
    _check(items)
    if not request.no_validate:
        _probe(item)
    _finish(request, path, text, items, output)


def _remove(request: Any, path: Path, output: Output) -> None:
    text = envfile.read(path)
    items = _items(text)
    remaining = [item for item in items if item["name"] != request.name]
    if len(remaining) == len(items):
        raise CallError(_NOT_FOUND, f"{path} has no backend {request.name!r}")
    _finish(request, path, text, remaining, output)


def _list(_: Any, path: Path, output: Output) -> None:
    items = [_redacted(item) for item in _items(envfile.read(path))]
    if output == "table":
        click.echo(_line(items))
    else:
        _show({"backends": items}, output)


_VARIANTS: Mapping[str, FileVariant] = {
    f"{_SERVICE}/AddBackend": FileVariant(
        flag="--write-env",
        help="Add it to OLLAMA_BACKENDS in this environment file instead; nothing is sent to the gateway.",
        run=_add,
    ),
    f"{_SERVICE}/RemoveBackend": FileVariant(
        flag="--write-env",
        help="Remove it from OLLAMA_BACKENDS in this environment file instead; nothing is sent to the gateway.",
        run=_remove,
    ),
    f"{_SERVICE}/ListBackends": FileVariant(
        flag="--env-file", help="Show those of OLLAMA_BACKENDS in this environment file instead.", run=_list
    ),
}


def _finish(request: Any, path: Path, text: str, items: list[Item], output: Output) -> None:
    """Writes the file, unless it is a dry run, and shows the line; nothing else for a dry run."""
    from controlplane.core.backends import VARIABLE  # noqa: PLC0415 - only who edits a file waits for it

    written = not request.validate_only
    if written:
        compact = json.dumps(items, separators=(",", ":"))
        envfile.replace(path, envfile.updated(text, VARIABLE, compact), expected=text)
    line = _line([_redacted(item) for item in items])
    if output != "table":
        _show({"environment_line": line, "written": str(path) if written else None}, output)
        return
    click.echo(line)
    if written:
        click.echo(f"written to {path}; restart the control planes to use it", err=True)


def _items(text: str) -> list[Item]:
    """The backends of a file in the order in which they stand there."""
    from controlplane.core import backends  # noqa: PLC0415 - see above
    from shared.redaction import Secret  # noqa: PLC0415

    known = envfile.value_of(text, backends.VARIABLE)
    if known:
        items = _parsed(known)
        _check(items)
        return items
    url = envfile.value_of(text, "OLLAMA_BASE_URL")
    if known is not None or not url:
        return []
    token = envfile.value_of(text, "OLLAMA_AUTH_TOKEN")
    try:
        only = backends.single_backend(url, Secret(token) if token else None)
    except backends.BackendsError as fault:
        raise CallError(_INVALID, f"OLLAMA_BASE_URL, OLLAMA_AUTH_TOKEN: {fault}") from fault
    return _parsed(backends.serialize([only], redacted=False))


def _parsed(text: str) -> list[Item]:
    try:
        items = json.loads(text)
    except ValueError:
        items = None
    if not isinstance(items, list) or not all(isinstance(item, dict) and "name" in item for item in items):
        # Without the decoder's message: it may quote the text, and with it a token.
        raise CallError(_INVALID, "OLLAMA_BACKENDS of the file must be a JSON list of objects with names")
    return items


def _check(items: list[Item]) -> None:
    from controlplane.core.backends import VARIABLE, BackendsError, parse_backends  # noqa: PLC0415 - see above

    try:
        parse_backends(json.dumps(items))
    except BackendsError as fault:
        raise CallError(_INVALID, f"{VARIABLE}: {fault}") from fault


def _item(request: Any, before: Item) -> Item:
    """What was typed; of a backend that is replaced, priority and weight stay where they were not."""
    item: Item = {"name": request.name, "url": request.url.rstrip("/")}
    item |= {field: getattr(request, field) for field in ("token", "header", "scheme") if getattr(request, field)}
    for field in ("priority", "weight"):
        if request.HasField(field):
            item[field] = getattr(request, field)
        elif field in before:
            item[field] = before[field]
    return item


def _probe(item: Item) -> None:
    from controlplane.core.backends import parse_backends  # noqa: PLC0415 - see above
    from controlplane.errors import UpstreamProbeError  # noqa: PLC0415
    from controlplane.ollama.client import OllamaClient, Target  # noqa: PLC0415
    from shared.backends import credential_header  # noqa: PLC0415

    (backend,) = parse_backends(json.dumps([item]))
    credential = credential_header(header=backend.header, scheme=backend.scheme, token=backend.token)
    target = Target(name=backend.name, url=backend.url, credential=credential)
    try:
        asyncio.run(OllamaClient().tags(target))
    except UpstreamProbeError as fault:
        message = f"backend {backend.name!r} failed its probe: {fault} (--no-validate writes it anyway)"
        raise CallError(_PROBE, message) from fault


def _redacted(item: Item) -> Item:
    from shared.redaction import REDACTED  # noqa: PLC0415 - see above

    return item | {"token": REDACTED} if item.get("token") else item


def _line(items: list[Item]) -> str:
    from controlplane.core.backends import VARIABLE  # noqa: PLC0415 - see above

    return f"{VARIABLE}={json.dumps(items, separators=(',', ':'))}"


def _show(document: dict[str, Any], output: Output) -> None:
    from controlplane.cli.render import show_document  # noqa: PLC0415 - see above

    show_document(document, output)
