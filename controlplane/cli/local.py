"""Commands that call no server: migrations, shell completion, and what other packages bring by entry points.

An entry point is imported when its command runs and at no other time. One that cannot be loaded (an image that holds
one plane has no embedded stack) breaks nothing but itself.
"""

import ast
import asyncio
import importlib.util
import json
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import click

from controlplane.cli import settings
from controlplane.cli.descriptors import first_sentence
from controlplane.cli.doctor import doctor
from controlplane.cli.errors import CLIError, UnreadyError, UnusableCommandError
from controlplane.cli.rpccommand import Session, common_flags

ENTRY_POINT_GROUP = "neuronetz_gateway.commands"
SHELLS = ("bash", "zsh", "fish")


@click.command(params=[settings.common_options()[0]])
@click.pass_context
def migrate(ctx: click.Context, /, **_: Any) -> None:
    """Bring the Postgres schema up to date.

    The database is found by the environment (DATABASE_URL); no other setting is needed. Safe to run
    again and beside running control planes, which do the same when they start.
    """
    session: Session = ctx.obj
    output = settings.read({**session.flags, **common_flags(ctx)}, session.environ).output
    asyncio.run(_migrate(session.environ))
    click.echo(json.dumps({"migrated": True}) if output == "json" else "migrated: true")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    r"""Print the completion script for a shell.

    \b
    bash:  eval "$(neuronetz-gateway completion bash)"
    zsh:   eval "$(neuronetz-gateway completion zsh)"
    fish:  neuronetz-gateway completion fish | source
    """
    from click.shell_completion import get_completion_class  # noqa: PLC0415 - other commands do not wait for it

    root = ctx.find_root()
    program = str(root.info_name)
    found = get_completion_class(shell)
    if found is None:
        raise CLIError(f"no completion for {shell}")
    variable = f"_{program}_COMPLETE".replace("-", "_").replace(".", "_").upper()
    click.echo(found(root.command, {}, program, variable).source())


_OWN: Mapping[str, click.Command] = {"migrate": migrate, "doctor": doctor, "completion": completion}


class InstalledCommands:
    """Our own local commands, and those of the entry points that are installed."""

    def __init__(self, installed: Callable[[], Mapping[str, EntryPoint]] | None = None) -> None:
        self._installed = installed or _installed

    def names(self) -> list[str]:
        """Entry points first (they are where one starts), then our own."""
        return [*sorted(name for name in self._installed() if name not in _OWN), *_OWN]

    def summary(self, name: str) -> str:
        """The first sentence about a command; an entry point's is read from its source, which is not run."""
        if name in _OWN:
            return first_sentence(_OWN[name].help or "")
        point = self._installed().get(name)
        return first_sentence(_docstring(point)) if point is not None else ""

    def load(self, name: str) -> click.Command | None:
        """The command; one that cannot be imported says so when it is called."""
        if name in _OWN:
            return _OWN[name]
        point = self._installed().get(name)
        if point is None:
            return None
        try:
            found = point.load()
        except Exception as fault:  # whatever another package does at import must not end this one
            return _unusable(name, f"{type(fault).__name__}: {fault}")
        return found if isinstance(found, click.Command) else _unusable(name, f"{point.value} is no command")


async def _migrate(environ: Mapping[str, str]) -> None:
    # Only this command needs the store, and a client's machine may not have it.
    from controlplane import config  # noqa: PLC0415
    from controlplane.errors import StoreUnavailableError  # noqa: PLC0415
    from controlplane.store import migrate as run  # noqa: PLC0415
    from shared import logs  # noqa: PLC0415

    known = config.load_database(environ)
    logs.configure(level="warning", style="console")
    try:
        await run(known)
    except StoreUnavailableError as fault:
        raise UnreadyError(str(fault)) from fault


def _installed() -> Mapping[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


def _unusable(name: str, reason: str) -> click.Command:
    def refuse(**_: Any) -> None:
        raise UnusableCommandError(f"{name} cannot be used here: {' '.join(reason.split())}")

    ignoring = {"ignore_unknown_options": True, "allow_extra_args": True}
    return click.Command(name, callback=refuse, context_settings=ignoring, add_help_option=False)


def _docstring(point: EntryPoint) -> str:
    try:
        spec = importlib.util.find_spec(point.module)
        source = Path(spec.origin).read_text() if spec is not None and spec.origin is not None else ""
        body = ast.parse(source).body
    except (ImportError, OSError, SyntaxError, ValueError):
        return ""
    found = (item for item in body if isinstance(item, ast.FunctionDef) and item.name == point.attr)
    return next((ast.get_docstring(item) or "" for item in found), "")
