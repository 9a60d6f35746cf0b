"""The group `neuronetz-gateway`: a command per RPC, built when it is asked for, and the local ones."""

import difflib
from dataclasses import replace
from typing import Any, Protocol

import click

from controlplane.cli import helptext
from controlplane.cli.descriptors import Catalogue, first_sentence
from controlplane.cli.rpccommand import RPCCommand, common_flags
from controlplane.cli.settings import common_options

PROGRAM = "neuronetz-gateway"
MAX_WIDTH = 110

_INTRODUCTION = """\
Operate the gateway: tenants, API keys, backends and models.

Every command has --output json for programs. The admin API is found by GATEWAY_ADMIN_ADDRESS and GATEWAY_ADMIN_TOKEN
(or GATEWAY_ADMIN_TOKEN_FILE), or by the options below, which may stand before the command or after it.
"""


class LocalCommands(Protocol):
    """Commands that are not RPCs."""

    def names(self) -> list[str]:
        """Their names, in the order of help."""

    def summary(self, name: str) -> str:
        """One sentence about a command, without loading it."""

    def load(self, name: str) -> click.Command | None:
        """The command, or None if there is none of this name."""


class Gateway(click.Group):
    """The commands of a catalogue and the local ones."""

    def __init__(self, catalogue: Catalogue, local: LocalCommands) -> None:
        super().__init__(
            name=PROGRAM,
            help=_INTRODUCTION,
            params=list(common_options()),
            callback=_remember_flags,
            context_settings={"max_content_width": MAX_WIDTH, "help_option_names": ["-h", "--help"]},
        )
        self._catalogue = catalogue
        self._local = local

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Every name, aliases too."""
        return [name for rpc in self._catalogue.rpcs for name in (rpc.name, *rpc.aliases)] + self._local.names()

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """The command of an RPC, or a local one; an RPC wins over a local command of its name."""
        rpc = self._catalogue.find(cmd_name)
        return self._local.load(cmd_name) if rpc is None else RPCCommand(rpc, self._catalogue)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does; an unknown name brings the closest known ones."""
        name = args[0]
        command = self.get_command(ctx, name)
        if command is None and not ctx.resilient_parsing:
            close = difflib.get_close_matches(name, self.list_commands(ctx))
            raise click.UsageError(f"no command {name!r}" + (f"; perhaps {', '.join(close)}?" if close else ""), ctx)
        return name if command is not None else None, command, args[1:]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """One section per service, then the local commands."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for rpc in self._catalogue.rpcs:
            names = ", ".join((rpc.name, *rpc.aliases))
            sections.setdefault(rpc.section, []).append((names, first_sentence(rpc.comment)))
        sections["Local"] = [(name, self._local.summary(name)) for name in self._local.names()]
        width = max(len(name) for rows in sections.values() for name, _ in rows)
        for title, rows in sections.items():
            with formatter.section(f"{title} commands"):
                formatter.write_dl([(name.ljust(width), text) for name, text in rows], col_max=width)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The exit codes, one per line."""
        formatter.write(f"\n{helptext.exit_codes()}\n")


@click.pass_context
def _remember_flags(ctx: click.Context, /, **_: Any) -> None:
    ctx.obj = replace(ctx.obj, flags=common_flags(ctx))
